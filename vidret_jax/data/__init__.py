"""Datasets as random-access sources; the only home of TensorFlow's readers."""
