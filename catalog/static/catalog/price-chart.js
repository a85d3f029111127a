/* The price of every seller of one product over time.
 *
 * Reads the JSON that catalog/charts.py makes; draws an SVG with step lines (a price holds until it
 * changes), outliers, and the 30-day prior low. A seller is told by colour, dash pattern and marker
 * shape together. Mouse, touch and keyboard move the same crosshair. No dependencies.
 */
(() => {
  "use strict";

  const SVG = "http://www.w3.org/2000/svg";
  const DAY = 86_400_000;
  const PRIOR_LOW_DAYS = 30;
  const DASHES = ["", "8 3", "2.5 2.5", "11 3 2.5 3", "5 2 1.5 2 1.5 2", "14 4"];
  const SHAPES = ["circle", "square", "triangle", "diamond", "cross", "pentagon"];
  const GLYPHS = { suspect: "?", confirmed: "✓", accepted: "✓", rejected: "×" };
  const RANGES = [["30 d", 30, "30 days"], ["90 d", 90, "90 days"], ["1 y", 365, "1 year"], ["All", 0, "all"]];
  const JUMP_PIXELS = 5;
  const TABLE_ROWS = 1_000;
  const language = document.documentElement.lang || "en";

  const svg = (name, attributes = {}, parent = null, text = "") => {
    const node = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text !== "") node.textContent = text;
    if (parent) parent.append(node);
    return node;
  };

  const html = (name, attributes = {}, parent = null, text = "") => {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text !== "") node.textContent = text;
    if (parent) parent.append(node);
    return node;
  };

  const formatter = (options) => {
    const format = new Intl.DateTimeFormat(language, { timeZone: "UTC", ...options });
    return (day) => format.format(new Date(day * DAY));
  };
  const longDate = formatter({ weekday: "short", day: "numeric", month: "short", year: "numeric" });
  const dayMonth = formatter({ day: "numeric", month: "short" });
  const monthOnly = formatter({ month: "short" });
  const monthYear = formatter({ month: "short", year: "numeric" });

  const moneyFormat = (currency, digits) => {
    const format = new Intl.NumberFormat(language, {
      style: "currency", currency, minimumFractionDigits: digits, maximumFractionDigits: digits,
    });
    return (value) => format.format(value);
  };

  /** Index of the last entry of a sorted array that is <= value, or -1. */
  const lastUpTo = (sorted, value) => {
    let low = 0;
    let high = sorted.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (sorted[middle] <= value) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  };

  const niceStep = (rough) => {
    const power = 10 ** Math.floor(Math.log10(rough));
    return [1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough * 0.999) * power;
  };

  /** Points of a marker of `size` around (x, y), as an SVG path. */
  const shapePath = (shape, x, y, size) => {
    const polygon = (corners, turn, radius = size) => {
      const points = [];
      for (let i = 0; i < corners; i += 1) {
        const angle = turn + (i * 2 * Math.PI) / corners;
        points.push(`${(x + radius * Math.cos(angle)).toFixed(1)} ${(y + radius * Math.sin(angle)).toFixed(1)}`);
      }
      return `M${points.join("L")}Z`;
    };
    switch (shape) {
      case "square": return polygon(4, Math.PI / 4);
      case "triangle": return polygon(3, -Math.PI / 2, size * 1.25);
      case "diamond": return polygon(4, 0, size * 1.2);
      case "pentagon": return polygon(5, -Math.PI / 2, size * 1.1);
      case "hexagon": return polygon(6, 0);
      case "cross": {
        const s = size * 0.85;
        return `M${x - s} ${y - s}L${x + s} ${y + s}M${x - s} ${y + s}L${x + s} ${y - s}`;
      }
      default: return polygon(16, 0);
    }
  };

  /** Spreads labels so that none is nearer than `gap` to the next, within [top, bottom]. */
  const spread = (labels, gap, top, bottom) => {
    labels.sort((a, b) => a.y - b.y);
    let floor = top;
    for (const label of labels) {
      label.at = Math.max(label.y, floor);
      floor = label.at + gap;
    }
    let ceiling = bottom;
    for (const label of [...labels].reverse()) {
      label.at = Math.min(label.at, ceiling);
      ceiling = label.at - gap;
    }
    return labels;
  };

  /** One seller's line. Days are counted from 1970-01-01, in UTC. */
  class Line {
    constructor(data) {
      Object.assign(this, data);
      this.shown = true;
      this.afterGap = new Set(data.gaps);
      this.slot = data.colour % DASHES.length;
      // From the seventh seller on a colour comes again, with another marker.
      this.shape = SHAPES[(data.colour + Math.floor(data.colour / SHAPES.length)) % SHAPES.length];
      this.lastDay = this.days.length ? this.days[this.days.length - 1] : -Infinity;
    }

    /** {price, low, high, seen} in force on `day`; null before the first and after the last. */
    on(day) {
      const at = lastUpTo(this.days, day);
      if (at < 0 || day > this.lastDay) return null;
      const inGap = this.days[at] < day && this.afterGap.has(at + 1);
      const exact = this.days[at] === day;
      return {
        price: this.prices[at],
        low: exact ? this.lows[at] : this.prices[at],
        high: exact ? this.highs[at] : this.prices[at],
        seen: !inGap,
      };
    }
  }

  class PriceChart {
    constructor(root, data) {
      this.root = root;
      this.data = data;
      this.part = (name) => root.querySelector(`[data-part=${name}]`);
      this.plot = this.part("plot");
      this.tip = this.part("tip");
      this.live = this.part("live");
      this.picture = svg("svg", {
        class: "pc-svg", tabindex: "0", role: "application",
        "aria-roledescription": "price chart", "aria-describedby": "pc-hint",
      });
      this.plot.prepend(this.picture);
      this.range = 0;
      this.cursor = null;
      this.emphasised = null;
      this.width = 0;
      this.makeCurrencyButtons();
      this.makeRangeButtons();
      this.listen();
      this.choose(0);
      new ResizeObserver(() => this.resized()).observe(this.plot);
    }

    choose(index) {
      const currency = this.data.currencies[index];
      this.currency = currency.code;
      this.lines = currency.lines.map((line) => new Line(line));
      const prices = this.lines.flatMap((line) => line.prices);
      const whole = prices.every((price) => Number.isInteger(price));
      const finest = prices.some((price) => Math.abs(price * 100 - Math.round(price * 100)) > 1e-6);
      this.money = moneyFormat(this.currency, finest ? 4 : whole ? 0 : 2);
      const first = this.lines.filter((line) => line.days.length).map((line) => line.days[0]);
      this.firstDay = Math.min(...first);
      this.endDay = Math.max(...this.lines.map((line) => line.lastDay)) + 1;
      this.cursor = null;
      this.emphasised = null;
      this.press(this.part("currencies"), index);
      this.makeLegend();
      this.draw();
      this.part("table").replaceChildren();
      if (this.part("details").open) this.fillTable();
    }

    makeCurrencyButtons() {
      const group = this.part("currencies");
      group.hidden = this.data.currencies.length < 2;
      this.data.currencies.forEach(({ code }, index) => {
        const button = html("button", { type: "button", class: "pc-button" }, group, code);
        button.addEventListener("click", () => this.choose(index));
      });
    }

    makeRangeButtons() {
      const group = this.part("ranges");
      RANGES.forEach(([label, days, words], index) => {
        const button = html("button", { type: "button", class: "pc-button", "aria-label": words }, group, label);
        button.addEventListener("click", () => {
          this.range = days;
          this.cursor = null;
          this.press(group, index);
          this.draw();
          if (this.part("details").open) this.fillTable();
        });
      });
      this.press(group, RANGES.length - 1);
    }

    press(group, index) {
      [...group.children].forEach((button, at) => button.setAttribute("aria-pressed", at === index));
    }

    makeLegend() {
      const legend = this.part("legend");
      legend.replaceChildren();
      for (const line of this.lines) {
        const item = html("li", {}, legend);
        const button = html("button", { type: "button", class: `pc-key pc-c${line.slot}`, "aria-pressed": "true" }, item);
        button.append(this.sample(line));
        html("span", { class: "pc-key-name" }, button, line.seller);
        const price = line.current ? this.money(line.price) : line.days.length ? "sold out" : "no price";
        html("span", { class: "pc-key-price" }, button, price);
        if (line.discount > 0) html("span", { class: "pc-key-discount" }, button, `−${Math.round(line.discount)} %`);
        button.addEventListener("click", () => {
          line.shown = !line.shown;
          button.setAttribute("aria-pressed", line.shown);
          this.draw();
        });
        for (const on of ["pointerenter", "focus"]) button.addEventListener(on, () => this.emphasise(line));
        for (const off of ["pointerleave", "blur"]) button.addEventListener(off, () => this.emphasise(null));
      }
      this.part("key").hidden = !this.lines.some((line) => line.outliers.length);
    }

    sample(line) {
      const picture = svg("svg", { class: "pc-sample", viewBox: "0 0 34 14", width: 34, height: 14, "aria-hidden": "true" });
      svg("path", { class: "pc-line", d: "M1 7H33", "stroke-dasharray": DASHES[line.slot] }, picture);
      svg("path", { class: `pc-marker pc-${line.shape}`, d: shapePath(line.shape, 17, 7, 4.5) }, picture);
      return picture;
    }

    emphasise(line) {
      this.emphasised = line && line.shown ? line : null;
      this.picture.classList.toggle("pc-dimmed", this.emphasised !== null);
      for (const group of this.picture.querySelectorAll("[data-seller]")) {
        group.classList.toggle("pc-emphasised", this.emphasised?.seller === group.dataset.seller);
      }
    }

    resized() {
      const width = Math.floor(this.plot.clientWidth);
      if (width && width !== this.width) this.draw();
    }

    get visible() {
      return this.lines.filter((line) => line.shown && line.days.length);
    }

    draw() {
      this.width = Math.max(260, Math.floor(this.plot.clientWidth));
      this.small = this.width < 600;
      this.height = Math.round(Math.min(480, Math.max(320, this.width * 0.44)));
      this.start = this.range ? Math.max(this.firstDay, this.endDay - this.range) : this.firstDay;
      this.picture.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
      this.picture.setAttribute("width", this.width);
      this.picture.setAttribute("height", this.height);
      this.picture.replaceChildren();
      const sellers = this.visible.map((line) => line.seller).join(", ") || "none";
      this.picture.setAttribute("aria-label",
        `Prices in ${this.currency} from ${longDate(this.start)} to ${longDate(this.endDay - 1)}. Sellers shown: ${sellers}.`);
      this.measure();
      this.drawAxes();
      this.clip = svg("g", { "clip-path": "url(#pc-clip)" }, this.picture);
      const defs = svg("defs", {}, this.picture);
      const clip = svg("clipPath", { id: "pc-clip" }, defs);
      svg("rect", { x: this.left, y: this.top - 2, width: this.right - this.left, height: this.bottom - this.top + 4 }, clip);
      if (!this.visible.length) {
        svg("text", { class: "pc-empty", x: (this.left + this.right) / 2, y: (this.top + this.bottom) / 2, "text-anchor": "middle" },
          this.picture, "No seller is switched on.");
      }
      const labels = this.drawPriorLows();
      for (const line of this.visible) this.drawLine(line);
      this.labelPriorLows(labels);
      for (const line of this.visible) this.drawOutliers(line);
      if (!this.small) this.drawEndLabels();
      this.crosshair = svg("g", { class: "pc-cross" }, this.picture);
      this.emphasise(this.emphasised);
      this.showCursor(false);
    }

    measure() {
      let low = Infinity;
      let high = -Infinity;
      const include = (value) => {
        low = Math.min(low, value);
        high = Math.max(high, value);
      };
      for (const line of this.visible) {
        const from = Math.max(0, lastUpTo(line.days, this.start));
        for (let i = from; i < line.days.length; i += 1) include(line.prices[i]);
      }
      for (const line of this.reduced()) include(line.priorLow);
      if (!Number.isFinite(low)) [low, high] = [0, 1];
      const room = (high - low || high * 0.1 || 1) * 0.08;
      this.low = Math.max(0, low - room);
      this.high = high + room;
      const step = niceStep((this.high - this.low) / (this.small ? 5 : 6));
      this.step = step;
      const digits = step >= 1 && Number.isInteger(step) ? 0 : step >= 0.1 ? 2 : 4;
      this.tickMoney = moneyFormat(this.currency, digits);
      const widest = Math.max(...[this.low, this.high].map((value) => this.tickMoney(value).length));
      this.left = Math.round(widest * 6.6 + 14);
      this.right = this.width - (this.small ? 10 : 138);
      this.top = 16;
      this.bottom = this.height - 34;
      const perDay = (this.right - this.left) / Math.max(1, this.endDay - this.start);
      this.x = (day) => this.left + (day - this.start) * perDay;
      this.y = (price) => this.bottom - ((price - this.low) / (this.high - this.low)) * (this.bottom - this.top);
      this.dayAt = (x) => Math.floor(this.start + (x - this.left) / perDay);
    }

    /** Lines whose prior low is drawn: those reduced now, or else the cheapest that has one. */
    reduced() {
      const known = this.visible.filter((line) => line.priorLow !== null && line.current);
      const reduced = known.filter((line) => line.discount > 0);
      if (reduced.length) return reduced;
      return known.sort((a, b) => a.price - b.price).slice(0, 1);
    }

    drawAxes() {
      const group = svg("g", { class: "pc-axes", "aria-hidden": "true" }, this.picture);
      for (let count = Math.ceil(this.low / this.step); count * this.step <= this.high; count += 1) {
        const value = count * this.step;
        const y = Math.round(this.y(value)) + 0.5;
        svg("line", { class: "pc-grid", x1: this.left, x2: this.right, y1: y, y2: y }, group);
        svg("text", { class: "pc-tick", x: this.left - 8, y: y + 4, "text-anchor": "end" }, group, this.tickMoney(value));
      }
      for (const [day, label, strong] of this.dateTicks()) {
        const x = Math.round(this.x(day)) + 0.5;
        if (x < this.left || x > this.right) continue;
        svg("line", { class: strong ? "pc-grid pc-year" : "pc-grid pc-vertical", x1: x, x2: x, y1: this.top, y2: this.bottom + 5 }, group);
        if (x > this.right - (this.small ? 22 : 10)) continue;
        svg("text", { class: strong ? "pc-tick pc-strong" : "pc-tick", x, y: this.bottom + 20, "text-anchor": "middle" }, group, label);
      }
      svg("line", { class: "pc-axis", x1: this.left, x2: this.right, y1: this.bottom + 0.5, y2: this.bottom + 0.5 }, group);
    }

    dateTicks() {
      const span = this.endDay - this.start;
      const perDay = (this.right - this.left) / span;
      const least = this.small ? 58 : 74;
      const ticks = [];
      const days = [1, 2, 7, 14].find((step) => step * perDay >= least);
      if (days && span <= 120) {
        for (let day = this.endDay - 1; day >= this.start; day -= days) ticks.push([day, dayMonth(day), false]);
        return ticks;
      }
      const months = [1, 2, 3, 6, 12, 24, 60].find((step) => step * 30.4 * perDay >= least) ?? 120;
      const first = new Date(this.start * DAY);
      let index = first.getUTCFullYear() * 12 + first.getUTCMonth();
      index = Math.ceil(index / months) * months;
      for (; ; index += months) {
        const day = Date.UTC(Math.floor(index / 12), index % 12, 1) / DAY;
        if (day >= this.endDay) break;
        if (day < this.start) continue;
        const january = index % 12 === 0;
        ticks.push([day, january || !ticks.length ? monthYear(day) : monthOnly(day), january]);
      }
      return ticks;
    }

    drawLine(line) {
      const group = svg("g", { class: `pc-seller pc-c${line.slot}`, "data-seller": line.seller }, this.clip);
      const seen = [];
      const jumps = [];
      const unseen = [];
      let at = Math.max(0, lastUpTo(line.days, this.start));
      let x = this.x(line.days[at]);
      let y = this.y(line.prices[at]);
      seen.push(`M${x.toFixed(1)} ${y.toFixed(1)}`);
      for (at += 1; at < line.days.length; at += 1) {
        const nextX = this.x(line.days[at]);
        const nextY = this.y(line.prices[at]);
        if (line.afterGap.has(at)) {
          const held = Math.min(nextX, this.x(line.days[at - 1] + 1));
          seen.push(`H${held.toFixed(1)}M${nextX.toFixed(1)} ${nextY.toFixed(1)}`);
          unseen.push(`M${held.toFixed(1)} ${y.toFixed(1)}H${nextX.toFixed(1)}V${nextY.toFixed(1)}`);
        } else {
          seen.push(`H${nextX.toFixed(1)}`);
          if (Math.abs(nextY - y) > JUMP_PIXELS) {
            // Drawn apart, and lightly: five sellers' jumps at full weight would hide the prices.
            jumps.push(`M${nextX.toFixed(1)} ${y.toFixed(1)}V${nextY.toFixed(1)}`);
            seen.push(`M${nextX.toFixed(1)} ${nextY.toFixed(1)}`);
          } else if (nextY !== y) {
            seen.push(`V${nextY.toFixed(1)}`);
          }
        }
        x = nextX;
        y = nextY;
      }
      seen.push(`H${this.x(line.lastDay + 1).toFixed(1)}`);
      if (unseen.length) svg("path", { class: "pc-unseen", d: unseen.join("") }, group);
      svg("path", { class: "pc-jump", d: jumps.join("") }, group);
      svg("path", { class: "pc-halo", d: seen.join("") }, group);
      svg("path", { class: "pc-line", d: seen.join(""), "stroke-dasharray": DASHES[line.slot] }, group);
      this.drawMarkers(line, group);
    }

    /** Markers at even distances, a little apart from one seller to the next. */
    drawMarkers(line, group) {
      const every = this.small ? 80 : 110;
      const offset = 14 + (line.slot * every) / DASHES.length;
      const path = [];
      for (let x = this.left + offset; x < this.right; x += every) {
        const there = line.on(this.dayAt(x));
        if (there?.seen) path.push(shapePath(line.shape, x, this.y(there.price), 4.5));
      }
      svg("path", { class: `pc-marker pc-${line.shape}`, d: path.join("") }, group);
    }

    drawPriorLows() {
      const placed = [];
      for (const line of this.reduced()) {
        const group = svg("g", { class: `pc-prior pc-c${line.slot}`, "data-seller": line.seller }, this.clip);
        const y = this.y(line.priorLow);
        const from = Math.max(this.left, this.x(line.since - PRIOR_LOW_DAYS));
        const to = Math.max(this.left, this.x(line.since));
        if (to > from) {
          svg("rect", { class: "pc-window", x: from, y: y - 3, width: to - from, height: 6 }, group);
          for (const x of [from, to]) svg("line", { class: "pc-prior-end", x1: x, x2: x, y1: y - 7, y2: y + 7 }, group);
        }
        svg("line", { class: "pc-prior-line", x1: from, x2: this.right, y1: y, y2: y }, group);
        placed.push({ line, y: y + 17, x: Math.min(this.right - 6, Math.max(to, this.left + 250)) });
      }
      return placed;
    }

    labelPriorLows(labels) {
      for (const label of spread(labels, 20, this.top + 10, this.bottom - 6)) {
        const { line } = label;
        const text = `30-day prior low ${this.money(line.priorLow)}${this.small ? "" : ` · ${line.seller}`}`;
        const group = svg("g", { class: `pc-prior pc-c${line.slot}`, "data-seller": line.seller }, this.picture);
        const pill = svg("rect", { class: "pc-pill", rx: 4 }, group);
        const words = svg("text", { class: "pc-prior-label", x: label.x, y: label.at, "text-anchor": "end" }, group, text);
        const box = words.getBBox();
        for (const [key, value] of Object.entries({ x: box.x - 5, y: box.y - 1, width: box.width + 10, height: box.height + 2 })) {
          pill.setAttribute(key, value);
        }
      }
    }

    drawOutliers(line) {
      for (const outlier of line.outliers) {
        if (outlier.day < this.start || outlier.day >= this.endDay) continue;
        const x = Math.min(this.right - 9, Math.max(this.left + 9, this.x(outlier.day + 0.5)));
        const above = outlier.price > this.high;
        const below = outlier.price < this.low;
        const y = above ? this.top + 12 : below ? this.bottom - 12 : this.y(outlier.price);
        const group = svg("g", { class: `pc-outlier pc-${outlier.state} pc-c${line.slot}`, "data-seller": line.seller }, this.picture);
        svg("title", {}, group, `${line.seller}: outlier ${this.money(outlier.price)}, ${outlier.state}, ${longDate(outlier.day)}`);
        svg("path", { class: "pc-hexagon", d: shapePath("hexagon", x, y, 9) }, group);
        svg("text", { class: "pc-glyph", x, y: y + 4, "text-anchor": "middle" }, group, GLYPHS[outlier.state]);
        if (above || below) {
          const left = x > this.right - (this.small ? 30 : 90);
          svg("text", { class: "pc-outlier-price", x: x + (left ? -14 : 14), y: y + 4, "text-anchor": left ? "end" : "start" },
            group, `${above ? "↑" : "↓"}${this.small ? "" : ` ${this.money(outlier.price)}`}`);
        }
      }
    }

    drawEndLabels() {
      const labels = this.visible.map((line) => ({ line, y: this.y(line.prices[line.prices.length - 1]) }));
      for (const { line, y, at } of spread(labels, 17, this.top + 6, this.bottom - 4)) {
        const group = svg("g", { class: `pc-end pc-c${line.slot}`, "data-seller": line.seller, "aria-hidden": "true" }, this.picture);
        const from = Math.min(this.right, this.x(line.lastDay + 1));
        svg("path", { class: "pc-leader", d: `M${from + 2} ${y}L${this.right + 14} ${at}` }, group);
        svg("path", { class: `pc-marker pc-${line.shape}`, d: shapePath(line.shape, this.right + 20, at, 4) }, group);
        const name = line.seller.length > 15 ? `${line.seller.slice(0, 14)}…` : line.seller;
        svg("text", { class: "pc-end-label", x: this.right + 29, y: at + 4 }, group, name);
      }
    }

    listen() {
      const at = (event) => {
        const box = this.picture.getBoundingClientRect();
        this.moveTo(this.dayAt(((event.clientX - box.left) * this.width) / box.width), false);
      };
      this.picture.addEventListener("pointermove", at);
      this.picture.addEventListener("pointerdown", at);
      this.picture.addEventListener("pointerleave", (event) => {
        if (event.pointerType === "mouse" && document.activeElement !== this.picture) this.hide();
      });
      this.picture.addEventListener("focus", () => {
        if (this.cursor === null && this.picture.matches(":focus-visible")) this.moveTo(this.endDay - 1, true);
      });
      this.picture.addEventListener("blur", () => this.hide());
      this.picture.addEventListener("keydown", (event) => this.key(event));
      this.part("details").addEventListener("toggle", () => this.fillTable());
    }

    key(event) {
      if (event.ctrlKey || event.altKey || event.metaKey) return;
      const here = this.cursor ?? this.endDay - 1;
      const day = event.shiftKey ? 7 : 1;
      const targets = {
        ArrowLeft: here - day, ArrowRight: here + day, PageUp: here - 30, PageDown: here + 30,
        Home: this.start, End: this.endDay - 1,
      };
      if (event.key in targets) this.moveTo(targets[event.key], true);
      else if (event.key.toLowerCase() === "o") this.nextOutlier(here, event.shiftKey ? -1 : 1);
      else if (event.key === "Escape" && this.cursor !== null) this.hide();
      else return;
      event.preventDefault();
    }

    nextOutlier(here, direction) {
      const days = this.visible.flatMap((line) => line.outliers.map((outlier) => outlier.day))
        .filter((day) => day >= this.start && day < this.endDay).sort((a, b) => direction * (a - b));
      if (days.length) this.moveTo(days.find((day) => direction * (day - here) > 0) ?? days[0], true);
    }

    moveTo(day, speak) {
      this.cursor = Math.min(this.endDay - 1, Math.max(this.start, day));
      this.showCursor(speak);
    }

    hide() {
      this.cursor = null;
      this.showCursor(false);
    }

    showCursor(speak) {
      this.crosshair.replaceChildren();
      this.tip.hidden = this.cursor === null;
      if (this.cursor === null) return;
      const x = this.x(this.cursor + 0.5);
      svg("line", { class: "pc-hair", x1: x, x2: x, y1: this.top, y2: this.bottom }, this.crosshair);
      const rows = this.visible.map((line) => ({ line, there: line.on(this.cursor) }));
      rows.sort((a, b) => (a.there?.price ?? Infinity) - (b.there?.price ?? Infinity));
      for (const { line, there } of rows) {
        if (!there) continue;
        svg("circle", { class: `pc-dot pc-c${line.slot}`, cx: x, cy: this.y(there.price), r: 4 }, this.crosshair);
      }
      this.fillTip(rows);
      this.placeTip(x);
      if (speak) this.say(rows);
    }

    fillTip(rows) {
      this.tip.replaceChildren();
      html("strong", {}, this.tip, longDate(this.cursor));
      const list = html("ul", {}, this.tip);
      for (const { line, there } of rows) {
        const item = html("li", { class: `pc-c${line.slot}${there?.seen ? "" : " pc-faint"}` }, list);
        item.append(this.sample(line));
        html("span", { class: "pc-tip-name" }, item, line.seller);
        html("span", { class: "pc-tip-price" }, item, this.words(there));
        for (const outlier of line.outliers.filter(({ day }) => day === this.cursor)) {
          const text = `${GLYPHS[outlier.state]} outlier ${this.money(outlier.price)}, ${outlier.state}`;
          html("span", { class: `pc-tip-outlier pc-${outlier.state}` }, item, text);
        }
      }
    }

    words(there) {
      if (!there) return "–";
      const range = there.low !== there.high ? ` (${this.money(there.low)}–${this.money(there.high)})` : "";
      return there.seen ? this.money(there.price) + range : `none seen (was ${this.money(there.price)})`;
    }

    placeTip(x) {
      if (this.small) {
        this.tip.removeAttribute("style");
        return;
      }
      const width = this.tip.offsetWidth;
      const middle = (this.left + this.right) / 2;
      this.tip.style.left = `${x > middle ? x - width - 14 : x + 14}px`;
      this.tip.style.top = `${this.top + 4}px`;
    }

    say(rows) {
      const parts = rows.map(({ line, there }) => {
        const outliers = line.outliers.filter(({ day }) => day === this.cursor)
          .map((outlier) => `, outlier ${this.money(outlier.price)} ${outlier.state}`);
        return `${line.seller} ${there ? this.words(there) : "no price"}${outliers.join("")}`;
      });
      window.clearTimeout(this.speaking);
      const text = `${longDate(this.cursor)}: ${parts.join("; ")}`;
      this.speaking = window.setTimeout(() => { this.live.textContent = text; }, 150);
    }

    /** The days of the range on which any seller's price changed, newest first. */
    fillTable() {
      const holder = this.part("table");
      holder.replaceChildren();
      if (!this.part("details").open) return;
      const days = new Set();
      for (const line of this.lines) {
        line.days.forEach((day, at) => {
          if (day < this.start || day >= this.endDay) return;
          if (at === 0 || line.prices[at] !== line.prices[at - 1] || line.afterGap.has(at)) days.add(day);
        });
        for (const { day } of line.outliers) if (day >= this.start) days.add(day);
      }
      const sorted = [...days].sort((a, b) => b - a);
      const table = html("table", { class: "sg-table" }, holder);
      const shown = sorted.length > TABLE_ROWS ? `, the newest ${TABLE_ROWS} of ${sorted.length}` : "";
      html("caption", {}, table, `Days on which a price in ${this.currency} changed${shown}`);
      const head = html("tr", {}, html("thead", {}, table));
      html("th", { scope: "col" }, head, "Day (UTC)");
      for (const line of this.lines) html("th", { scope: "col", class: "sg-number" }, head, line.seller);
      const body = html("tbody", {}, table);
      for (const day of sorted.slice(0, TABLE_ROWS)) {
        const row = html("tr", {}, body);
        html("th", { scope: "row" }, row, longDate(day));
        for (const line of this.lines) {
          const outliers = line.outliers.filter((outlier) => outlier.day === day)
            .map((outlier) => ` [outlier ${this.money(outlier.price)}, ${outlier.state}]`);
          html("td", { class: "sg-number" }, row, this.words(line.on(day)) + outliers.join(""));
        }
      }
    }
  }

  const start = () => {
    for (const root of document.querySelectorAll("[data-price-chart]")) {
      const source = document.getElementById(root.dataset.priceChart);
      root.chart = new PriceChart(root, JSON.parse(source.textContent));
    }
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
