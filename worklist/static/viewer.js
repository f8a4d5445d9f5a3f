// A film in full depth on a canvas: stored values, a look-up table, and evidence over it. No step loses anything.
"use strict";

(() => {
  // Evidence is enlarged to about so many points on its longer side before contours are taken.
  const SURFACE = 448;
  const CLOSEST = 32, PIXELS_SEEN_FROM = 4;
  const rgb = (colour, alpha = 1) => `rgb(${colour[0]} ${colour[1]} ${colour[2]} / ${alpha})`;

  // Values as they came, and ever smaller averages of them for the view of the whole film.
  class Film {
    constructor(facts, buffer) {
      this.facts = facts;
      const entries = 1 << facts.bits;
      this.table = new Uint16Array(buffer, 0, entries);
      const count = facts.rows * facts.columns;
      const values = facts.allocated === 16
        ? new Uint16Array(buffer, 2 * entries, count) : new Uint8Array(buffer, 2 * entries, count);
      // From here on a value is its place in the table: bits that do not count are gone, the lowest value is 0.
      const mask = entries - 1, sign = facts.signed ? entries >> 1 : 0;
      if (facts.allocated !== facts.bits || sign) {
        for (let i = 0; i < count; i++) values[i] = (values[i] & mask) ^ sign;
      }
      this.lowest = facts.signed ? -(entries >> 1) : 0;
      this.padding = facts.padding && facts.padding.map((value) => value - this.lowest);
      this.levels = [{ values, columns: facts.columns, rows: facts.rows }];
    }

    level(number) {
      while (this.levels.length <= number) {
        const last = this.levels[this.levels.length - 1];
        if (Math.min(last.columns, last.rows) < 2) break;
        this.levels.push(halved(last, this.padding));
      }
      return this.levels[Math.min(number, this.levels.length - 1)];
    }
  }

  function halved({ values, columns, rows }, padding) {
    const width = columns >> 1, height = rows >> 1;
    const half = new values.constructor(width * height);
    const [first, last] = padding || [1, 0];
    for (let y = 0, to = 0; y < height; y++) {
      let from = 2 * y * columns;
      for (let x = 0; x < width; x++, from += 2, to++) {
        const a = values[from], b = values[from + 1], c = values[from + columns], d = values[from + columns + 1];
        half[to] = (a + b + c + d + 2) >> 2;
        if (padding) {
          // An average of film and padding would be neither.
          const film = [a, b, c, d].filter((value) => value < first || value > last);
          half[to] = film.length < 2 ? first : film.reduce((sum, value) => sum + value, 0) / film.length;
        }
      }
    }
    return { values: half, columns: width, rows: height };
  }

  // Evidence as contours (in film units), a wash of colour, and a mark at the peak; drawn as in the results.
  class Evidence {
    constructor(map, facts) {
      Object.assign(this, map);
      const per = Math.max(2, Math.round(SURFACE / Math.max(map.rows, map.columns)));
      this.width = map.columns * per;
      this.height = map.rows * per;
      this.surface = enlarged(map, this.width, this.height);
      this.contours = contours(this, facts);
      const [row, column] = this.peakCell();
      const x = (column + map.centre) / map.columns * facts.columns, y = (row + map.centre) / map.rows * facts.rows;
      this.cross = { x, y, arm: Math.max(facts.rows, facts.columns) / 128 };
      this.colours = this.washed();
    }

    peakCell() {
      let best = 0;
      this.evidence.forEach((value, place) => { if (value > this.evidence[best]) best = place; });
      return [Math.floor(best / this.columns), best % this.columns];
    }

    washed() {
      const canvas = new OffscreenCanvas(this.width, this.height);
      const context = canvas.getContext("2d");
      const image = context.createImageData(this.width, this.height);
      for (let i = 0; i < this.surface.length; i++) {
        const excess = this.surface[i] - this.threshold;
        if (excess < 0) continue;
        const level = 3 * Math.min(255, Math.round(excess * 255 / this.span));
        for (let channel = 0; channel < 3; channel++) image.data[4 * i + channel] = this.ramp[level + channel];
        image.data[4 * i + 3] = 255;
      }
      context.putImageData(image, 0, 0);
      return canvas;
    }
  }

  // Cubic convolution with -0.75, as OpenCV enlarges, each value in the middle of what its cell looks at: contours lie
  // where those of the results lie.
  function enlarged({ evidence, columns, rows, centre }, width, height) {
    const weights = (t) => {
      const a = -0.75, near = (d) => ((a + 2) * d - (a + 3)) * d * d + 1;
      const far = (d) => ((a * d - 5 * a) * d + 8 * a) * d - 4 * a;
      return [far(1 + t), near(t), near(1 - t), far(2 - t)];
    };
    const taps = (size, cells) => Array.from({ length: size }, (_, place) => {
      const at = (place + 0.5) * cells / size - centre, base = Math.floor(at), found = weights(at - base);
      return found.map((weight, tap) => [Math.min(cells - 1, Math.max(0, base - 1 + tap)), weight]);
    });
    const across = taps(width, columns), down = taps(height, rows);
    const wide = new Float64Array(rows * width);
    for (let row = 0; row < rows; row++) {
      for (let x = 0; x < width; x++) {
        for (const [column, weight] of across[x]) wide[row * width + x] += weight * evidence[row * columns + column];
      }
    }
    const surface = new Float64Array(width * height);
    for (let y = 0; y < height; y++) {
      for (const [row, weight] of down[y]) {
        for (let x = 0; x < width; x++) surface[y * width + x] += weight * wide[row * width + x];
      }
    }
    return surface;
  }

  // Marching squares on the points of the surface, its border carried on to the edge of the film.
  function contours({ surface, width, height, threshold }, facts) {
    const path = new Path2D();
    const at = (x, y) => surface[Math.min(height - 1, Math.max(0, y)) * width + Math.min(width - 1, Math.max(0, x))];
    const place = (x, y) => [
      Math.min(1, Math.max(0, (x + 0.5) / width)) * facts.columns,
      Math.min(1, Math.max(0, (y + 0.5) / height)) * facts.rows,
    ];
    const sides = [[], ["l", "b"], ["b", "r"], ["l", "r"], ["t", "r"], ["l", "t", "b", "r"], ["t", "b"], ["l", "t"],
      ["l", "t"], ["t", "b"], ["l", "b", "t", "r"], ["t", "r"], ["l", "r"], ["b", "r"], ["l", "b"], []];
    for (let y = -1; y < height; y++) {
      for (let x = -1; x < width; x++) {
        const a = at(x, y), b = at(x + 1, y), c = at(x + 1, y + 1), d = at(x, y + 1);
        const kind = 8 * (a >= threshold) + 4 * (b >= threshold) + 2 * (c >= threshold) + (d >= threshold);
        const cut = (from, to) => (threshold - from) / (to - from);
        const points = { t: () => place(x + cut(a, b), y), r: () => place(x + 1, y + cut(b, c)),
          b: () => place(x + cut(d, c), y + 1), l: () => place(x, y + cut(a, d)) };
        for (let side = 0; side < sides[kind].length; side += 2) {
          path.moveTo(...points[sides[kind][side]]());
          path.lineTo(...points[sides[kind][side + 1]]());
        }
      }
    }
    return path;
  }

  class Viewer {
    constructor(canvas, { changed }) {
      this.canvas = canvas;
      this.context = canvas.getContext("2d", { alpha: false });
      this.part = new OffscreenCanvas(1, 1);
      this.changed = changed;
      this.film = this.evidence = null;
      this.fade = 0.5;
      this.mapShown = false;
      new ResizeObserver(() => this.resized()).observe(canvas);
      this.listen();
    }

    show(film) {
      this.film = film;
      this.evidence = null;
      this.turns = 0;
      this.inverted = false;
      this.resetWindow();
      this.resized();
      this.fit();
    }

    clear() {
      this.film = this.evidence = null;
      this.draw();
    }

    setEvidence(map) {
      this.evidence = map && !map.words ? new Evidence(map, this.film.facts) : null;
      this.draw();
    }

    get windowStated() {
      const { slope, intercept } = this.film.facts;
      const ends = [this.low, this.high].map((value) => value * slope + intercept);
      return { centre: (ends[0] + ends[1]) / 2, width: Math.abs(ends[1] - ends[0]) };
    }

    setWindow(low, high) {
      const least = Math.max(1, (this.film.facts.high - this.film.facts.low) / 1000);
      const middle = (low + high) / 2, reach = Math.max(least, high - low) / 2;
      this.low = middle - reach;
      this.high = middle + reach;
      this.draw();
    }

    resetWindow() {
      this.setWindow(this.film.facts.low, this.film.facts.high);
    }

    preset(name) {
      const { low, high, bits } = this.film.facts;
      const middle = (low + high) / 2, reach = (high - low) / 2;
      if (name === "sent") this.setWindow(low, high);
      if (name === "hard") this.setWindow(middle - 0.55 * reach, middle + 0.55 * reach);
      if (name === "soft") this.setWindow(middle - 1.6 * reach, middle + 1.6 * reach);
      if (name === "full") this.setWindow(this.film.lowest, this.film.lowest + (1 << bits) - 1);
    }

    // dx widens the window, dy makes the film brighter: both in parts of the window as it was sent.
    dragWindow(dx, dy) {
      const nominal = this.film.facts.high - this.film.facts.low;
      const grows = dx * nominal / 2;
      const falling = this.film.table[0] > this.film.table[this.film.table.length - 1];
      const moves = (falling !== this.inverted ? -dy : dy) * nominal;
      this.setWindow(this.low + moves - grows, this.high + moves + grows);
    }

    invert() { this.inverted = !this.inverted; this.draw(); }
    rotate() { this.turns = (this.turns + 1) % 4; this.fit(); }
    toggleMap(on = !this.mapShown) { this.mapShown = on; this.draw(); }
    setFade(fade) { this.fade = fade; this.draw(); }

    get fitting() {
      const { columns, rows, aspect } = this.film.facts;
      const turned = this.turns % 2, width = turned ? rows * aspect : columns, height = turned ? columns : rows * aspect;
      return Math.min(this.width / width, this.height / height);
    }

    fit() {
      if (!this.film || !this.width) return;
      this.fitted = true;
      this.scale = this.fitting;
      this.x = this.film.facts.columns / 2;
      this.y = this.film.facts.rows / 2;
      this.draw();
    }

    actual() { this.zoom(1 / this.ratio / this.scale); }

    pan(dx, dy) {
      const [x, y] = this.toFilm(this.width / 2 - dx, this.height / 2 - dy);
      this.x = Math.min(this.film.facts.columns, Math.max(0, x));
      this.y = Math.min(this.film.facts.rows, Math.max(0, y));
      this.fitted = false;
      this.draw();
    }

    zoom(factor, at = [this.width / 2, this.height / 2]) {
      const before = this.toFilm(...at);
      this.scale = Math.min(CLOSEST, Math.max(this.fitting / 2, this.scale * factor));
      const after = this.toFilm(...at);
      this.x += before[0] - after[0];
      this.y += before[1] - after[1];
      this.fitted = false;
      this.draw();
    }

    // From film pixels to pixels of the canvas, and back from points of the page.
    matrix() {
      const { aspect } = this.film.facts, scale = this.scale * this.ratio;
      return new DOMMatrix().translate(this.canvas.width / 2, this.canvas.height / 2).rotate(90 * this.turns)
        .scale(scale, scale * aspect).translate(-this.x, -this.y);
    }

    toFilm(x, y) {
      const point = this.matrix().inverse().transformPoint({ x: x * this.ratio, y: y * this.ratio });
      return [point.x, point.y];
    }

    resized() {
      this.ratio = window.devicePixelRatio || 1;
      this.width = this.canvas.clientWidth;
      this.height = this.canvas.clientHeight;
      this.canvas.width = Math.round(this.width * this.ratio);
      this.canvas.height = Math.round(this.height * this.ratio);
      if (!this.film) return;
      if (this.fitted) this.fit(); else this.draw();
    }

    draw() {
      if (this.waiting) return;
      this.waiting = true;
      requestAnimationFrame(() => { this.waiting = false; this.drawNow(); });
    }

    drawNow() {
      const { context, canvas } = this;
      context.setTransform(1, 0, 0, 1, 0, 0);
      context.fillStyle = "#000";
      context.fillRect(0, 0, canvas.width, canvas.height);
      if (!this.film || !canvas.width || !this.scale) return;
      const matrix = this.matrix();
      this.drawFilm(matrix);
      if (this.mapShown && this.evidence && this.fade > 0) this.drawEvidence(matrix);
      this.changed();
    }

    drawFilm(matrix) {
      const { columns, rows } = this.film.facts, scale = this.scale * this.ratio;
      const number = Math.max(0, Math.floor(Math.log2(1 / scale)));
      const level = this.film.level(number);
      const across = columns / level.columns, down = rows / level.rows;
      const inverse = matrix.inverse();
      const corners = [[0, 0], [this.canvas.width, 0], [0, this.canvas.height], [this.canvas.width, this.canvas.height]]
        .map(([x, y]) => inverse.transformPoint({ x, y }));
      const within = (value, most) => Math.min(most, Math.max(0, value));
      const left = within(Math.floor(Math.min(...corners.map((corner) => corner.x)) / across) - 1, level.columns);
      const right = within(Math.ceil(Math.max(...corners.map((corner) => corner.x)) / across) + 1, level.columns);
      const top = within(Math.floor(Math.min(...corners.map((corner) => corner.y)) / down) - 1, level.rows);
      const bottom = within(Math.ceil(Math.max(...corners.map((corner) => corner.y)) / down) + 1, level.rows);
      if (right <= left || bottom <= top) return;
      const width = right - left, height = bottom - top, greys = this.greys();
      const image = new ImageData(width, height), pixels = new Uint32Array(image.data.buffer);
      for (let y = top, to = 0; y < bottom; y++) {
        for (let from = y * level.columns + left, end = from + width; from < end; from++, to++) {
          pixels[to] = greys[level.values[from]];
        }
      }
      if (this.part.width < width || this.part.height < height) {
        this.part.width = Math.max(width, this.part.width);
        this.part.height = Math.max(height, this.part.height);
      }
      this.part.getContext("2d").putImageData(image, 0, 0);
      this.context.setTransform(matrix);
      this.context.imageSmoothingEnabled = scale < PIXELS_SEEN_FROM;
      this.context.imageSmoothingQuality = "medium";
      this.context.drawImage(this.part, 0, 0, width, height, left * across, top * down, width * across, height * down);
    }

    // The grey of each value, packed as the canvas stores it. The shape of the device's own curve is kept.
    greys() {
      const { table, lowest, padding, facts } = this.film, last = table.length - 1;
      const greys = new Uint32Array(table.length);
      const stretch = (facts.high - facts.low) / (this.high - this.low);
      for (let i = 0; i <= last; i++) {
        const place = Math.min(last, Math.max(0, facts.low + (i + lowest - this.low) * stretch - lowest));
        const below = Math.floor(place), above = Math.min(last, below + 1);
        let grey = Math.round((table[below] + (table[above] - table[below]) * (place - below)) / 257);
        if (this.inverted) grey = 255 - grey;
        greys[i] = 0xff000000 | grey << 16 | grey << 8 | grey;
      }
      if (padding) greys.fill(0xff000000, Math.max(0, padding[0]), Math.min(last, padding[1]) + 1);
      return greys;
    }

    drawEvidence(matrix) {
      const { context, evidence, film: { facts } } = this;
      context.setTransform(matrix);
      context.imageSmoothingEnabled = true;
      context.globalAlpha = Math.min(1, 2 * this.fade * evidence.wash);
      context.drawImage(evidence.colours, 0, 0, facts.columns, facts.rows);
      const { x, y, arm } = evidence.cross, mark = new Path2D();
      const across = Math.max(arm, 6 / this.scale), down = across / facts.aspect;
      mark.moveTo(x - across, y); mark.lineTo(x + across, y);
      mark.moveTo(x, y - down); mark.lineTo(x, y + down);
      const lines = new Path2D();
      lines.addPath(evidence.contours, matrix);
      lines.addPath(mark, matrix);
      context.setTransform(1, 0, 0, 1, 0, 0);
      context.globalAlpha = Math.min(1, 2 * this.fade);
      context.lineCap = context.lineJoin = "round";
      for (const [colour, width] of [[evidence.halo, 4], [evidence.contour, 2]]) {
        context.strokeStyle = rgb(colour);
        context.lineWidth = width * this.ratio;
        context.stroke(lines);
      }
      context.globalAlpha = 1;
    }

    listen() {
      const { canvas } = this;
      // One pointer sets the window, or pans; two fingers pan and zoom, and the last one to leave does nothing more.
      const held = new Map();
      let pans = false, pinched = false;
      const span = () => {
        const [one, two] = held.values();
        const apart = Math.max(1, Math.hypot(two.x - one.x, two.y - one.y));
        return { x: (one.x + two.x) / 2, y: (one.y + two.y) / 2, apart };
      };
      canvas.addEventListener("pointerdown", (event) => {
        if (!this.film || held.size === 2) return;
        canvas.setPointerCapture(event.pointerId);
        held.set(event.pointerId, { x: event.clientX, y: event.clientY });
        pans = event.button !== 0 || event.shiftKey;
        pinched = held.size === 2;
        canvas.focus({ preventScroll: true });
      });
      canvas.addEventListener("pointermove", (event) => {
        const point = held.get(event.pointerId);
        if (!point || !this.film) return;
        const before = held.size === 2 ? span() : { ...point };
        Object.assign(point, { x: event.clientX, y: event.clientY });
        if (held.size === 2) {
          const after = span(), box = canvas.getBoundingClientRect();
          this.pan(after.x - before.x, after.y - before.y);
          this.zoom(after.apart / before.apart, [after.x - box.left, after.y - box.top]);
        } else if (pans) this.pan(point.x - before.x, point.y - before.y);
        else if (!pinched) this.dragWindow((point.x - before.x) / 300, (point.y - before.y) / 500);
      });
      for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) {
        canvas.addEventListener(name, (event) => held.delete(event.pointerId));
      }
      canvas.addEventListener("contextmenu", (event) => event.preventDefault());
      canvas.addEventListener("dblclick", () => this.film && this.fit());
      canvas.addEventListener("wheel", (event) => {
        if (!this.film) return;
        event.preventDefault();
        const box = canvas.getBoundingClientRect();
        const step = event.deltaMode === 1 ? event.deltaY * 20 : event.deltaY;
        this.zoom(Math.exp(-step / 400), [event.clientX - box.left, event.clientY - box.top]);
      }, { passive: false });
    }
  }

  window.clearfilm.viewer = { Film, Viewer };
})();
