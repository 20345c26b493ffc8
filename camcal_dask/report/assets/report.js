"use strict";
// Draws maps, histograms, trends and matrices of a report from window.CAMCAL (data.js).  No network, no library.
(() => {
  const data = window.CAMCAL, root = document.documentElement.dataset.root || "";
  const only = document.body.dataset.detectors ? new Set(document.body.dataset.detectors.split(" ")) : null;
  const shown = data.detectors.map((d) => !only || only.has(d.name));
  const amps = data.amps.box.map((_, i) => i).filter((i) => shown[data.amps.detector[i]]);
  const byKey = new Map(data.quantities.map((q) => [q.key, q]));
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const STOPS = ["440154", "482475", "414487", "355f8d", "2a788e", "21918c", "22a884", "42be71", "7ad151", "bddf26", "fde725"]
    .map((h) => [0, 2, 4].map((k) => parseInt(h.slice(k, k + 2), 16)));
  const colour = (t) => {
    const p = Math.min(1, Math.max(0, t)) * (STOPS.length - 1), k = Math.min(STOPS.length - 2, Math.floor(p)), f = p - k;
    return `rgb(${STOPS[k].map((c, i) => Math.round(c + f * (STOPS[k + 1][i] - c))).join(",")})`;
  };
  const text = (v) => (v === null || v === undefined ? "no value"
    : v === 0 || Math.abs(v) >= 1e-3 ? Number(v.toPrecision(4)).toString() : v.toExponential(2));
  const page = (i) => `${root}detectors/${encodeURIComponent(data.detectors[i].name)}.html`;

  // ---- canvas in device pixels
  function begin(canvas, width, height) {
    const scale = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    const g = canvas.getContext("2d");
    g.setTransform(scale, 0, 0, scale, 0, 0);
    g.clearRect(0, 0, width, height);
    g.font = "11px system-ui, sans-serif";
    return g;
  }

  // ---- maps
  function frame(size) {
    let x0 = Infinity, y0 = Infinity, x1 = -Infinity, y1 = -Infinity;
    data.detectors.forEach((d, i) => {
      if (!shown[i]) return;
      x0 = Math.min(x0, d.box[0]); y0 = Math.min(y0, d.box[1]);
      x1 = Math.max(x1, d.box[0] + d.box[2]); y1 = Math.max(y1, d.box[1] + d.box[3]);
    });
    const side = Math.max(x1 - x0, y1 - y0) * 1.02, k = size / side;
    const left = (x0 + x1 - side) / 2, top = (y0 + y1 + side) / 2;
    return { k, px: (x) => (x - left) * k, py: (y) => (top - y) * k, mm: (px, py) => [px / k + left, top - py / k] };
  }
  function drawMap(canvas, q) {
    const size = canvas.clientWidth, g = begin(canvas, size, size), f = frame(size), [lo, hi] = q.limits;
    const gap = amps.length > 400 ? 0 : 0.5;
    for (const i of amps) {
      const [x, y, w, h] = data.amps.box[i], v = q.values[i];
      g.fillStyle = v === null ? css("--none") : colour((v - lo) / (hi - lo));
      g.fillRect(f.px(x) + gap / 2, f.py(y + h) + gap / 2, w * f.k - gap, h * f.k - gap);
      if (v === null && w * f.k > 6) {
        g.strokeStyle = css("--faint"); g.lineWidth = 0.5; g.beginPath();
        g.moveTo(f.px(x), f.py(y)); g.lineTo(f.px(x + w), f.py(y + h)); g.stroke();
      }
    }
    if (size > 420) {
      g.lineWidth = 1; g.strokeStyle = css("--card");
      data.detectors.forEach((d, i) => {
        if (shown[i]) g.strokeRect(f.px(d.box[0]), f.py(d.box[1] + d.box[3]), d.box[2] * f.k, d.box[3] * f.k);
      });
    }
    canvas._pick = (px, py) => {
      const [x, y] = f.mm(px, py);
      return amps.find((i) => {
        const b = data.amps.box[i];
        return x >= b[0] && x <= b[0] + b[2] && y >= b[1] && y <= b[1] + b[3];
      });
    };
  }

  // ---- histograms by vendor
  function drawHistogram(canvas, q) {
    const w = canvas.clientWidth, h = canvas.clientHeight, g = begin(canvas, w, h), [lo, hi] = q.limits, n = 36;
    const counts = data.vendors.map(() => new Array(n).fill(0));
    for (const i of amps) {
      const v = q.values[i];
      if (v === null || v < lo || v > hi) continue;
      counts[data.detectors[data.amps.detector[i]].vendor][Math.min(n - 1, Math.floor(((v - lo) / (hi - lo)) * n))]++;
    }
    const most = Math.max(1, ...counts.flat()), base = h - 14, step = w / n;
    counts.forEach((row, k) => {
      g.fillStyle = g.strokeStyle = css(`--vendor-${k % 3}`);
      g.globalAlpha = 0.28;
      row.forEach((c, b) => g.fillRect(b * step, base - (c / most) * (base - 2), step, (c / most) * (base - 2)));
      g.globalAlpha = 1; g.lineWidth = 1.2; g.beginPath();
      row.forEach((c, b) => {
        const y = base - (c / most) * (base - 2);
        if (b) g.lineTo(b * step, y); else g.moveTo(0, y);
        g.lineTo((b + 1) * step, y);
      });
      g.stroke();
    });
    g.strokeStyle = css("--line"); g.lineWidth = 1;
    g.beginPath(); g.moveTo(0, base + 0.5); g.lineTo(w, base + 0.5); g.stroke();
    const bar = 4;
    for (let x = 0; x < w; x += 2) { g.fillStyle = colour(x / w); g.fillRect(x, base + 1, 2, bar - 1); }
    g.fillStyle = css("--soft"); g.textBaseline = "bottom";
    g.textAlign = "left"; g.fillText(text(lo), 0, h + 1);
    g.textAlign = "right"; g.fillText(text(hi), w, h + 1);
  }

  // ---- trends: median and 16..84 % of the amps of each vendor
  function drawTrend(canvas, q) {
    const w = canvas.clientWidth, h = canvas.clientHeight, g = begin(canvas, w, h), n = data.exposures.length;
    const mjd = data.exposures.map((e) => e.mjd);
    const timed = mjd.every((t) => t !== null) && Math.max(...mjd) - Math.min(...mjd) > 1.5;
    const t0 = Math.min(...mjd), t1 = Math.max(...mjd);
    const px = (i) => 4 + (w - 8) * (timed ? (mjd[i] - t0) / (t1 - t0) : n > 1 ? i / (n - 1) : 0.5);
    const good = q.trend.flatMap((bands) => bands.flatMap((band) => band.filter((v, i) => v !== null && !data.exposures[i].bad)));
    if (!good.length) return;
    let lo = Math.min(...good), hi = Math.max(...good);
    const pad = (hi - lo) * 0.08 || Math.abs(hi) * 0.05 || 1;
    lo -= pad; hi += pad;
    const py = (v) => Math.min(h - 2, Math.max(2, 2 + (h - 4) * (1 - (v - lo) / (hi - lo))));
    q.trend.forEach(([low, mid, high], k) => {
      const ok = mid.map((v, i) => i).filter((i) => mid[i] !== null);
      if (!ok.length) return;
      g.fillStyle = g.strokeStyle = css(`--vendor-${k % 3}`);
      g.globalAlpha = 0.16; g.beginPath();
      ok.forEach((i, s) => (s ? g.lineTo(px(i), py(high[i])) : g.moveTo(px(i), py(high[i]))));
      ok.slice().reverse().forEach((i) => g.lineTo(px(i), py(low[i])));
      g.closePath(); g.fill();
      g.globalAlpha = 1; g.lineWidth = 1.2; g.beginPath();
      ok.forEach((i, s) => (s ? g.lineTo(px(i), py(mid[i])) : g.moveTo(px(i), py(mid[i]))));
      g.stroke();
      if (n <= 80) for (const i of ok) {
        g.beginPath(); g.arc(px(i), py(mid[i]), 2, 0, 7);
        if (data.exposures[i].role === "verification") { g.fillStyle = css("--card"); g.fill(); g.lineWidth = 1; g.stroke(); g.fillStyle = css(`--vendor-${k % 3}`); } else g.fill();
        if (data.exposures[i].bad) { g.strokeStyle = css("--bad"); g.beginPath(); g.arc(px(i), py(mid[i]), 4, 0, 7); g.stroke(); g.strokeStyle = css(`--vendor-${k % 3}`); }
      }
    });
    canvas._tip = (x) => {
      const i = data.exposures.map((_, e) => e).reduce((a, b) => (Math.abs(px(b) - x) < Math.abs(px(a) - x) ? b : a), 0);
      return `${data.exposures[i].id}${data.exposures[i].first ? " (first of set)" : ""}: ` +
        q.trend.map(([, mid], k) => `${data.vendors[k]} ${text(mid[i])}`).join(", ");
    };
  }

  // ---- matrices: rows x detectors
  function drawMatrix(canvas, matrix, limit) {
    const columns = data.detectors.map((_, i) => i).filter((i) => shown[i]);
    canvas.getContext("2d").font = "11px system-ui, sans-serif";
    const label = 12 + Math.max(...matrix.rows.map((r) => canvas.getContext("2d").measureText(r).width));
    const available = canvas.parentElement.clientWidth - 42 - label;
    const cw = Math.max(4, Math.min(34, available / columns.length)), ch = matrix.rows.length > 40 ? 8 : 15, top = 34;
    const w = label + cw * columns.length + 2, h = top + ch * matrix.rows.length + 2;
    canvas.style.width = `${w}px`; canvas.style.height = `${h}px`;
    const g = begin(canvas, w, h);
    g.textBaseline = "middle";
    matrix.rows.forEach((name, r) => {
      g.textAlign = "right"; g.fillStyle = css(matrix.required[r] ? "--ink" : "--soft");
      if (ch > 9 || r % 2 === 0) g.fillText(name, label - 6, top + ch * (r + 0.5));
      columns.forEach((d, c) => {
        const v = matrix.values[r][d];
        g.fillStyle = v === null ? "transparent" : v === 0 ? css("--good-bg") : css("--bad");
        g.globalAlpha = v ? 0.25 + 0.75 * Math.min(1, v / limit) : 1;
        g.fillRect(label + cw * c, top + ch * r, cw - 0.6, ch - 1);
        g.globalAlpha = 1;
      });
    });
    g.fillStyle = css("--soft"); g.textAlign = "left";
    let last = "";
    columns.forEach((d, c) => {
      const raft = data.detectors[d].raft;
      if (raft === last) return;
      last = raft;
      g.save(); g.translate(label + cw * c + 5, top - 4); g.rotate(-Math.PI / 4); g.fillText(raft, 0, 0); g.restore();
    });
    canvas._cell = (x, y) => {
      const c = Math.floor((x - label) / cw), r = Math.floor((y - top) / ch);
      return r >= 0 && r < matrix.rows.length && c >= 0 && c < columns.length ? [r, columns[c]] : null;
    };
    canvas._matrix = matrix;
  }

  // ---- what a card says in words
  function describe(q) {
    const known = amps.map((i) => q.values[i]).filter((v) => v !== null), [lo, hi] = q.limits;
    const under = known.filter((v) => v < lo).length, over = known.filter((v) => v > hi).length, none = amps.length - known.length;
    const parts = data.vendors.map((name, k) => {
      const of = amps.filter((i) => data.detectors[data.amps.detector[i]].vendor === k).map((i) => q.values[i]).filter((v) => v !== null).sort((a, b) => a - b);
      return of.length ? `${name} ${text(of[of.length >> 1])}` : "";
    }).filter(Boolean);
    const clipped = [under && `${under} below`, over && `${over} above`, none && `${none} without value`].filter(Boolean);
    return `median ${parts.join(", ")}${clipped.length ? " · " + clipped.join(", ") : ""}`;
  }

  // ---- pages
  const tip = document.body.appendChild(document.createElement("div"));
  tip.id = "tip";
  function showTip(event, words) {
    tip.style.display = words ? "block" : "none";
    if (!words) return;
    tip.textContent = words;
    tip.style.left = `${Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8)}px`;
    tip.style.top = `${Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 8)}px`;
  }
  const place = (i) => `${data.detectors[data.amps.detector[i]].name} ${data.amps.name[i]}`;
  function interact(canvas, quantity) {
    canvas.addEventListener("mousemove", (e) => {
      const i = canvas._pick && canvas._pick(e.offsetX, e.offsetY), q = quantity();
      showTip(e, i === undefined ? "" : `${place(i)}: ${text(q.values[i])} ${q.unit}`);
    });
    canvas.addEventListener("mouseleave", (e) => showTip(e, ""));
    canvas.addEventListener("click", (e) => {
      const i = canvas._pick && canvas._pick(e.offsetX, e.offsetY);
      if (i !== undefined) location.href = `${page(data.amps.detector[i])}#${encodeURIComponent(data.amps.name[i])}`;
    });
  }
  function drawCard(card) {
    const q = byKey.get(card.dataset.q);
    drawMap(card.querySelector(".map"), q);
    drawHistogram(card.querySelector(".hist"), q);
    const trend = card.querySelector(".trend");
    if (trend) drawTrend(trend, q);
    card.querySelector(".note").textContent = describe(q);
    if (card._ready) return;
    card._ready = true;
    interact(card.querySelector(".map"), () => q);
    if (trend) {
      trend.addEventListener("mousemove", (e) => showTip(e, trend._tip && trend._tip(e.offsetX)));
      trend.addEventListener("mouseleave", (e) => showTip(e, ""));
    }
  }
  const cards = [...document.querySelectorAll(".card[data-q]")], seen = new Set();
  const watch = new IntersectionObserver((entries) => entries.forEach((e) => {
    if (e.isIntersecting) { seen.add(e.target); watch.unobserve(e.target); drawCard(e.target); }
  }), { rootMargin: "300px" });
  cards.forEach((card) => watch.observe(card));

  const explorer = document.querySelector(".explorer");
  let chosen = null;
  function explore() {
    const q = byKey.get(chosen.value);
    drawMap(explorer.querySelector(".map"), q);
    drawHistogram(explorer.querySelector(".hist"), q);
    explorer.querySelector(".about").textContent = q.doc ? `${q.doc}${q.unit ? ` [${q.unit}]` : ""}` : q.unit;
    explorer.querySelector(".note").textContent = describe(q);
  }
  if (explorer) {
    chosen = explorer.querySelector("select");
    const wanted = decodeURIComponent(location.hash.slice(1));
    if (byKey.has(wanted)) chosen.value = wanted;
    chosen.addEventListener("change", explore);
    interact(explorer.querySelector(".map"), () => byKey.get(chosen.value));
  }
  const matrices = [...document.querySelectorAll("canvas[data-matrix]")];
  for (const canvas of matrices) {
    const unit = canvas.dataset.unit;
    canvas.addEventListener("mousemove", (e) => {
      const cell = canvas._cell && canvas._cell(e.offsetX, e.offsetY);
      if (!cell) return showTip(e, "");
      const v = canvas._matrix.values[cell[0]][cell[1]];
      showTip(e, `${canvas._matrix.rows[cell[0]]}, ${data.detectors[cell[1]].name}: ${v === null ? "not evaluated" : `${text(v)} ${unit}`}`);
    });
    canvas.addEventListener("mouseleave", (e) => showTip(e, ""));
    canvas.addEventListener("click", (e) => {
      const cell = canvas._cell && canvas._cell(e.offsetX, e.offsetY);
      if (cell) location.href = page(cell[1]);
    });
  }
  function drawAll() {
    if (explorer) explore();
    matrices.forEach((c) => drawMatrix(c, data.matrices[c.dataset.matrix], Number(c.dataset.limit)));
    seen.forEach(drawCard);
  }
  drawAll();
  let timer = 0;
  addEventListener("resize", () => { clearTimeout(timer); timer = setTimeout(drawAll, 120); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
})();
