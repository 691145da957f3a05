'use strict';
// Plays spans of clips and sorts the queries. Everything else is style.
(() => {
  document.documentElement.classList.add('on');
  const EARLY = 0.04; // Seconds: a frame, as no clock hits an end exactly.
  const loop = document.getElementById('loop');

  function connect(box) {
    const video = box.querySelector('video');
    if (!video) return;
    const axis = Number(box.dataset.axis);
    const svg = box.querySelector('.lanes');
    const head = svg.querySelector('.head');
    const buttons = [...box.querySelectorAll('button.play')];
    let span = null; // [start, end] that is played.
    let seeking = false; // By this script.
    let first = true; // Nothing was chosen or played yet.
    let stopping = false; // By this script.

    const read = button => button.dataset.span.split(',').map(Number);
    // The link ends in '#t=start,end' of the first span: there the browser
    // itself stops, once.
    let fragment = Infinity;
    if (buttons.length) {
      const [from, to] = read(buttons[0]);
      if (to > from) fragment = to;
    }
    const bar = button => svg.querySelector(
      `rect[data-bar="${button.dataset.bar}"]`);
    // A span without length is a place to start from.
    const end = () => span[1] > span[0] ? span[1] : Infinity;

    function choose(chosen) {
      first = false;
      span = chosen && read(chosen);
      for (const button of buttons) {
        button.setAttribute('aria-pressed', String(button === chosen));
        bar(button).classList.toggle('playing', button === chosen);
      }
    }

    function seek(seconds) {
      seeking = true;
      video.currentTime = seconds;
    }

    function play() {
      video.play().catch(() => {}); // Stopped before it began.
    }

    function stop() {
      stopping = !video.paused;
      video.pause();
    }

    function draw() {
      head.classList.add('moving');
      const place = `${100 * Math.min(1, video.currentTime / axis)}%`;
      head.setAttribute('x1', place);
      head.setAttribute('x2', place);
    }

    function begin() {
      seek(span[0]);
      if (span[0] > video.duration - EARLY) stop();
      else play();
    }

    function finish() {
      if (loop.checked) begin();
      else stop();
    }

    function watch() {
      draw();
      if (span && !video.seeking && video.currentTime >= end() - EARLY) {
        finish();
      }
      if (!video.paused) requestAnimationFrame(watch);
    }

    function start(button) {
      if (span && button.getAttribute('aria-pressed') === 'true' &&
          !video.paused) {
        stop();
        return;
      }
      choose(button);
      begin();
    }

    for (const button of buttons) {
      button.addEventListener('click', () => start(button));
    }
    svg.addEventListener('click', event => {
      const button = buttons.find(b => bar(b) === event.target);
      if (button) {
        start(button);
        return;
      }
      const edges = svg.getBoundingClientRect();
      choose(null);
      seek(axis * (event.clientX - edges.left) / edges.width);
    });
    video.addEventListener('play', () => {
      if (first && buttons.length) choose(buttons[0]);
      first = false;
      if (span && video.currentTime >= end() - EARLY) seek(span[0]);
      requestAnimationFrame(watch);
    });
    video.addEventListener('pause', () => {
      const ours = stopping;
      stopping = false;
      if (ours || video.ended || video.currentTime < fragment - EARLY) return;
      fragment = Infinity;
      if (span && video.currentTime >= end() - EARLY) finish();
      else play();
    });
    video.addEventListener('ended', () => { if (span) finish(); });
    video.addEventListener('seeking', () => {
      // Who drags the clip's own slider out of the span watches freely.
      const now = video.currentTime;
      if (!seeking && span && (now < span[0] - EARLY || now > end())) {
        choose(null);
      }
    });
    video.addEventListener('seeked', () => {
      seeking = false;
      if (span || !video.paused) draw();
    });
  }

  const main = document.querySelector('main');
  const rows = [...main.querySelectorAll('article')];
  const number = (row, key, other) =>
    row.dataset[key] ? Number(row.dataset[key]) : other;
  const orders = {
    worst: row => number(row, 'iou', 0),
    best: row => -number(row, 'iou', 0),
    place: row => -number(row, 'place', Infinity),
  };

  function sort(name) {
    const key = orders[name];
    const sorted = key ? [...rows].sort((a, b) => key(a) - key(b) || 0) : rows;
    main.append(...sorted);
  }

  function count() {
    const shown = rows.filter(row => row.getClientRects().length).length;
    document.getElementById('count').textContent =
      shown < rows.length ? `${shown} of ${rows.length} shown` : '';
  }

  document.querySelectorAll('.clip').forEach(connect);
  const order = document.getElementById('order');
  if (order) order.addEventListener('change', () => sort(order.value));
  document.querySelectorAll('input[type=radio]').forEach(
    input => input.addEventListener('change', count));
})();
