'use strict';
// Plays the clips of a query together, sorts queries, and has the beginnings of
// those clips read that come into sight: there may be thousands.
(() => {
  document.documentElement.classList.add('on');
  const playing = new Set();

  function stop(button) {
    playing.delete(button);
    button.setAttribute('aria-pressed', 'false');
    for (const video of button.closest('article').querySelectorAll('video')) {
      video.pause();
    }
  }

  function start(button) {
    playing.forEach(stop);
    playing.add(button);
    button.setAttribute('aria-pressed', 'true');
    for (const video of button.closest('article').querySelectorAll('video')) {
      video.currentTime = 0;
      video.play().catch(() => {}); // No such file, or stopped at once.
    }
  }

  const sight = new IntersectionObserver(entries => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      sight.unobserve(entry.target);
      entry.target.preload = 'metadata';
    }
  }, {rootMargin: '400px'});
  for (const video of document.querySelectorAll('video')) sight.observe(video);

  for (const button of document.querySelectorAll('.together')) {
    button.addEventListener('click', () => {
      if (playing.has(button)) stop(button);
      else start(button);
    });
  }

  const main = document.querySelector('main');
  const rows = [...main.querySelectorAll('article')];
  const number = (row, key, other) =>
    row.dataset[key] ? Number(row.dataset[key]) : other;
  const orders = {
    worst: row => number(row, 'ap', Infinity),
    best: row => -number(row, 'ap', -Infinity),
    most: row => -number(row, 'relevant', 0),
  };
  const order = document.getElementById('order');
  if (order) {
    order.addEventListener('change', () => {
      const key = orders[order.value];
      main.append(...(key
        ? [...rows].sort((a, b) => (key(a) - key(b)) || 0) : rows));
    });
  }
})();
