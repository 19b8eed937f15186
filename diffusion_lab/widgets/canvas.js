// A field on a canvas: raw float32 values in, colours, range and hover here, so that a new field costs no figure.

const STYLE = `
.dl-field { display: flex; flex-direction: column; gap: 2px; font: 12px var(--jp-ui-font-family, sans-serif);
            color: var(--jp-ui-font-color1, inherit); font-variant-numeric: tabular-nums; min-width: 0; }
.dl-field .dl-title { white-space: nowrap; overflow: hidden; text-overflow: ellipsis; font-weight: 600; }
.dl-field .dl-map { display: block; width: 100%; border: 1px solid var(--jp-border-color2, #bbb); outline: none;
                    box-sizing: border-box; cursor: crosshair; background: var(--jp-layout-color2, transparent); }
.dl-field .dl-map:focus-visible { border-color: var(--jp-brand-color1, #2196f3); }
.dl-field .dl-scale { display: flex; gap: 6px; align-items: center; color: var(--jp-ui-font-color2, inherit); font-size: 11px; }
.dl-field .dl-bar { flex: 1; height: 8px; min-width: 20px; }
.dl-field.dl-old .dl-map { opacity: 0.45; }
.dl-field .dl-here { white-space: nowrap; overflow: hidden; text-overflow: ellipsis; min-height: 14px; font-size: 11px;
                     color: var(--jp-ui-font-color2, inherit); }
`;

const number = new Intl.NumberFormat("en", { maximumSignificantDigits: 4, useGrouping: false });
const show = (value) => (Number.isFinite(value) ? number.format(value).replace("-", "−") : "–");

const quantity = (value, units) => (units === "–" ? show(value) : `${show(value)} ${units}`);

function degrees(value, positive, negative) {
  const rounded = Math.round(10 * Math.abs(value)) / 10;
  return `${rounded}°${rounded === 0 ? "" : value > 0 ? positive : negative}`;
}

function floats(view) {
  // The buffer of a message is not aligned to four bytes; a copy is.
  return new Float32Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
}

function element(parent, tag, name) {
  const made = document.createElement(tag);
  made.className = name;
  parent.append(made);
  return made;
}

function isDark(el) {
  const [r, g, b] = getComputedStyle(el).color.match(/[\d.]+/g).map(Number);
  return 0.3 * r + 0.6 * g + 0.1 * b > 140; // light text stands on a dark page
}

function render({ model, el }) {
  const style = document.createElement("style");
  style.textContent = STYLE;
  const root = document.createElement("div");
  root.className = "dl-field";
  el.append(style, root);
  const title = element(root, "div", "dl-title");
  const map = element(root, "canvas", "dl-map");
  const scale = element(root, "div", "dl-scale");
  const low = element(scale, "span", "dl-low");
  const bar = element(scale, "canvas", "dl-bar");
  const high = element(scale, "span", "dl-high");
  const here = element(root, "div", "dl-here");
  map.tabIndex = 0;
  map.setAttribute("role", "img");

  const pixels = document.createElement("canvas");
  let field = new Float32Array(0);
  let place = null; // row and column under the pointer or the keyboard's cross

  function paint() {
    const [rows, columns] = model.get("shape");
    const [from, to] = model.get("limits");
    const colours = model.get("colours");
    const old = model.get("old");
    const names = [`${model.get("title")}${old ? " · of an earlier setting" : ""}`, model.get("units")];
    root.classList.toggle("dl-old", old);
    title.textContent = title.title = names[0];
    low.textContent = show(from);
    high.textContent = quantity(to, names[1]);
    map.setAttribute("aria-label", `${names[0]}, colours from ${show(from)} to ${quantity(to, names[1])}`);
    field = floats(model.get("field"));
    pixels.width = columns;
    pixels.height = rows;
    const image = new ImageData(columns, rows);
    const slope = 256 / (to - from);
    for (let i = 0; i < rows * columns; i++) {
      const value = field[i];
      if (!Number.isFinite(value)) continue; // stays transparent
      const level = 3 * Math.min(255, Math.max(0, Math.floor((value - from) * slope)) || 0);
      image.data[4 * i] = colours.getUint8(level);
      image.data[4 * i + 1] = colours.getUint8(level + 1);
      image.data[4 * i + 2] = colours.getUint8(level + 2);
      image.data[4 * i + 3] = 255;
    }
    pixels.getContext("2d").putImageData(image, 0, 0);
    bar.width = 256;
    bar.height = 1;
    const ramp = new ImageData(256, 1);
    for (let i = 0; i < 256; i++)
      for (let c = 0; c < 4; c++) ramp.data[4 * i + c] = c < 3 ? colours.getUint8(3 * i + c) : 255;
    bar.getContext("2d").putImageData(ramp, 0, 0);
    compose();
  }

  // Pixels, coastlines and the keyboard's cross, at the resolution of the screen.
  function compose() {
    const [rows, columns] = model.get("shape");
    const ratio = window.devicePixelRatio || 1;
    map.style.aspectRatio = `${columns} / ${rows * model.get("stretch")}`;
    const width = Math.max(columns, Math.round((map.clientWidth || model.get("width")) * ratio));
    map.width = width;
    map.height = Math.round((width * rows * model.get("stretch")) / columns);
    const context = map.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.drawImage(pixels, 0, 0, map.width, map.height);
    const lines = floats(model.get("lines"));
    const [sx, sy] = [map.width / columns, map.height / rows];
    context.strokeStyle = "rgba(20, 20, 20, 0.8)";
    context.lineWidth = 0.8 * ratio;
    context.beginPath();
    let drawing = false;
    for (let i = 0; i < lines.length; i += 2) {
      const [x, y] = [(lines[i] + 0.5) * sx, (lines[i + 1] + 0.5) * sy];
      if (Number.isNaN(x)) drawing = false;
      else if (drawing) context.lineTo(x, y);
      else { context.moveTo(x, y); drawing = true; }
    }
    context.stroke();
    if (place && document.activeElement === map) {
      context.strokeStyle = "rgba(255, 0, 140, 0.9)";
      context.strokeRect(place[1] * sx, place[0] * sy, sx, sy);
    }
    tell();
  }

  function tell() {
    if (!place) { here.textContent = ""; return; }
    const [row, column] = place;
    const [latitudes, longitudes] = [model.get("latitudes"), model.get("longitudes")];
    const where = latitudes.length
      ? ` at ${degrees(latitudes[row], "N", "S")} ${degrees(longitudes[column], "E", "W")}` : "";
    here.textContent = quantity(field[row * model.get("shape")[1] + column], model.get("units")) + where;
  }

  function inside(value, size) { return Math.min(size - 1, Math.max(0, Math.floor(value))); }

  map.addEventListener("pointermove", (event) => {
    const [rows, columns] = model.get("shape");
    const box = map.getBoundingClientRect();
    place = [inside(((event.clientY - box.top) / box.height) * rows, rows),
             inside(((event.clientX - box.left) / box.width) * columns, columns)];
    tell();
  });
  map.addEventListener("pointerleave", () => { place = null; compose(); });
  map.addEventListener("blur", () => { place = null; compose(); });
  map.addEventListener("keydown", (event) => {
    const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!move) return;
    event.preventDefault();
    event.stopPropagation(); // or the notebook would go to another cell
    const shape = model.get("shape");
    place = place || [Math.floor(shape[0] / 2), Math.floor(shape[1] / 2)];
    place = place.map((at, i) => inside(at + move[i], shape[i]));
    compose();
  });

  // The page's theme, for charts that Python draws.
  function report() {
    if (!root.isConnected || model.get("dark") === isDark(root)) return;
    model.set("dark", isDark(root));
    model.save_changes();
  }

  let asked = false;
  function later() { // one painting for all the traits of a message
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => { asked = false; paint(); });
  }
  const traits = ["field", "shape", "limits", "colours", "title", "units", "lines", "stretch", "old"];
  traits.forEach((name) => model.on(`change:${name}`, later));
  const resized = new ResizeObserver(() => compose());
  resized.observe(root);
  const themed = new MutationObserver(() => setTimeout(report, 100));
  themed.observe(document.body, { attributes: true });
  const timer = setTimeout(report, 100);
  paint();
  return () => {
    traits.forEach((name) => model.off(`change:${name}`, later));
    resized.disconnect();
    themed.disconnect();
    clearTimeout(timer);
  };
}

export default { render };
