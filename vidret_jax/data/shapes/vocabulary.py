# SPDX-License-Identifier: Apache-2.0
"""What the `shapes` corpus is made of, and the words for it.

Every list order is part of the corpus: class ids are positions.
"""

COLOURS = {
  'red': (215, 35, 40),
  'orange': (240, 130, 25),
  'yellow': (230, 215, 35),
  'green': (35, 170, 55),
  'cyan': (30, 190, 210),
  'blue': (45, 75, 225),
  'purple': (145, 45, 205),
  'pink': (245, 90, 175),
}
COLOUR_WORDS = {
  'red': ('red', 'scarlet', 'crimson'),
  'orange': ('orange', 'amber', 'tangerine'),
  'yellow': ('yellow', 'golden', 'lemon'),
  'green': ('green', 'emerald', 'lime'),
  'cyan': ('cyan', 'turquoise', 'aqua'),
  'blue': ('blue', 'azure', 'cobalt'),
  'purple': ('purple', 'violet', 'lilac'),
  'pink': ('pink', 'rosy', 'magenta'),
}

# Noun class -> words. The first eight are the shapes that act.
SHAPES = {
  'circle': ('circle', 'disc', 'ball'),
  'square': ('square', 'box', 'block'),
  'triangle': ('triangle', 'wedge', 'pyramid'),
  'star': ('star', 'asterisk', 'spark'),
  'cross': ('cross', 'plus', 'crucifix'),
  'ring': ('ring', 'hoop', 'donut'),
  'heart': ('heart', 'valentine', 'lovesign'),
  'bar': ('bar', 'stick', 'beam'),
}
THINGS = ('ground', 'sound', 'word', 'voice')
NOUN_CLASSES = tuple(SHAPES) + THINGS

# Verb class -> third person forms.
ACTIONS = {
  'move': ('moves', 'slides', 'glides', 'travels'),
  'grow': ('grows', 'expands', 'swells'),
  'shrink': ('shrinks', 'contracts', 'dwindles'),
  'spin': ('spins', 'rotates', 'twirls'),
  'blink': ('blinks', 'flashes', 'flickers'),
  'bounce': ('bounces', 'hops', 'jumps'),
  'shake': ('shakes', 'trembles', 'quivers'),
  'orbit': ('circles', 'loops', 'revolves'),
  'fade': ('fades', 'dims', 'vanishes'),
  'stretch': ('stretches', 'widens', 'flattens'),
}
VERB_CLASSES = tuple(ACTIONS) + ('play', 'show', 'talk')
# Acts of a thing on itself are ARG1 in PropBank, deliberate ones ARG0.
AGENTIVE = ('bounce', 'orbit', 'shake')
# Turning a round shape changes no pixel.
INVISIBLE = {('spin', 'circle'), ('spin', 'ring')}

DIRECTIONS = {
  'left': (-1, 0),
  'right': (1, 0),
  'up': (0, -1),
  'down': (0, 1),
}
DIRECTION_WORDS = {
  'left': ('to the left', 'leftwards', 'west'),
  'right': ('to the right', 'rightwards', 'east'),
  'up': ('up', 'upwards', 'to the top'),
  'down': ('down', 'downwards', 'to the bottom'),
}
MANNERS = {
  'fast': ('quickly', 'rapidly', 'swiftly'),
  'slow': ('slowly', 'gently', 'gradually'),
}
SIZES = {
  'small': ('small', 'little', 'tiny'),
  'large': ('large', 'big', 'huge'),
}

TEXTURES = {
  'plain': ('plain', 'smooth', 'bare'),
  'striped': ('striped', 'barred', 'lined'),
  'checked': ('checked', 'chequered', 'tiled'),
  'dotted': ('dotted', 'spotted', 'speckled'),
  'brick': ('brick', 'walled', 'masonry'),
  'wavy': ('wavy', 'rippled', 'curly'),
  'sandy': ('sandy', 'grainy', 'rough'),
  'gridded': ('gridded', 'meshed', 'latticed'),
}
TONES = {
  'grey': (112, 112, 112),
  'brown': (116, 88, 66),
  'olive': (96, 104, 62),
  'slate': (74, 92, 116),
  'plum': (102, 76, 104),
  'dark': (52, 52, 54),
}
TONE_WORDS = {
  'grey': ('grey', 'ashen'),
  'brown': ('brown', 'earthy'),
  'olive': ('olive', 'mossy'),
  'slate': ('slate', 'steel'),
  'plum': ('plum', 'mauve'),
  'dark': ('dark', 'black'),
}
GROUND_WORDS = ('ground', 'floor', 'background', 'surface')

SOUNDS = {
  'hum': ('low hum', 'deep drone', 'bass note'),
  'whistle': ('high whistle', 'shrill note', 'piping tone'),
  'beeps': ('beeping', 'electronic pulse', 'bleeping'),
  'drum': ('drumming', 'thumping beat', 'pounding'),
  'rise': ('rising siren', 'ascending tone', 'climbing pitch'),
  'fall': ('falling siren', 'descending tone', 'sinking pitch'),
  'hiss': ('hissing', 'white noise', 'rushing air'),
  'bell': ('bell', 'chime', 'ringing gong'),
}

OVERLAYS = (
  'sale', 'stop', 'open', 'exit', 'news', 'live', 'goal', 'menu', 'taxi',
  'cafe', 'bank', 'zone', 'play', 'next', 'back', 'help', 'vote', 'free',
  'hot', 'cold', 'new', 'zoo', 'gym', 'spa', 'bus', 'art', 'map', 'key',
  'fish', 'rice', 'milk', 'jazz', 'opera', 'quiz', 'paint', 'train',
)  # fmt: skip

TOPICS = {
  'weather': ('storm', 'rain', 'wind', 'snow', 'thunder'),
  'food': ('soup', 'bread', 'cheese', 'dinner', 'recipe'),
  'sport': ('match', 'team', 'coach', 'league', 'stadium'),
  'money': ('price', 'loan', 'salary', 'market', 'debt'),
  'travel': ('flight', 'hotel', 'suitcase', 'passport', 'tour'),
  'school': ('teacher', 'exam', 'lesson', 'pupil', 'homework'),
  'health': ('doctor', 'fever', 'medicine', 'nurse', 'clinic'),
  'animals': ('dog', 'horse', 'tiger', 'rabbit', 'eagle'),
  'space': ('rocket', 'planet', 'comet', 'orbiter', 'galaxy'),
  'gardens': ('rose', 'lawn', 'seed', 'hedge', 'orchard'),
}
TOPIC_WORDS = {
  'weather': ('the weather', 'the forecast'),
  'food': ('food', 'cooking'),
  'sport': ('sport', 'games'),
  'money': ('money', 'finance'),
  'travel': ('travel', 'holidays'),
  'school': ('school', 'education'),
  'health': ('health', 'illness'),
  'animals': ('animals', 'wildlife'),
  'space': ('space', 'astronomy'),
  'gardens': ('gardens', 'plants'),
}
LINES = (
  'did you hear about the {0} and the {1}',
  'i keep thinking of the {0} and that {1}',
  'they say the {0} was better than the {1}',
  'tell me more about your {0} and this {1}',
  'nobody expected the {0} after the {1}',
)
