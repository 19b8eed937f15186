// A slider over explicit stops with a box for any number between. What Python sets is shown; what a hand does is
// sent as a numbered message, and until Python has acknowledged the newest one, the hand's value stays.

const STYLE = `
.dl-slider { display: grid; grid-template-columns: var(--dl-label, 82px) minmax(40px, 1fr) auto auto; gap: 0 8px;
             align-items: center; min-height: 28px; font: 12px var(--jp-ui-font-family, sans-serif);
             color: var(--jp-ui-font-color1, inherit); font-variant-numeric: tabular-nums; }
.dl-slider .dl-label { text-align: right; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; font-size: 13px; }
.dl-slider .dl-track { position: relative; height: 22px; margin: 0 7px; border-radius: 4px; cursor: pointer; touch-action: pan-y; }
.dl-slider .dl-track::before { content: ""; position: absolute; inset: 9px 0; border-radius: 2px;
             background: var(--jp-border-color1, #aaa); }
.dl-slider .dl-thumb { position: absolute; top: 4px; width: 14px; height: 14px; margin-left: -7px; border-radius: 50%;
             box-sizing: border-box; background: var(--jp-layout-color1, #fff); border: 2px solid var(--jp-brand-color1, #1976d2); }
.dl-slider .dl-track:focus-visible { outline: 2px solid var(--jp-brand-color1, #1976d2); outline-offset: 1px; }
.dl-slider .dl-number { width: 58px; box-sizing: border-box; font: inherit; color: inherit; padding: 1px 4px; border-radius: 2px;
             border: 1px solid var(--jp-border-color2, #bbb); background: var(--jp-layout-color1, transparent); }
.dl-slider.dl-words .dl-number { width: 104px; }
.dl-slider.dl-bare .dl-number { width: 100%; grid-column: 2 / 4; }
.dl-slider .dl-play { width: 26px; height: 24px; padding: 0; color: inherit; border-radius: 2px; cursor: pointer;
             border: 1px solid var(--jp-border-color2, #bbb); background: var(--jp-layout-color2, transparent); }
.dl-slider .dl-refusal { grid-column: 2 / -1; font-size: 11px; color: var(--jp-error-color1, #c62828); }
.dl-slider .dl-refusal:empty, .dl-slider [hidden] { display: none; }
.dl-slider.dl-off { opacity: 0.45; }
.dl-slider.dl-off .dl-track { cursor: default; }
`;

const show = (value) => (typeof value === "number" ? String(Number(value.toPrecision(7))) : value);
const order = (value) => (value === "∞" ? Infinity : value);
const STALE = 1000; // milliseconds after which an answer is not waited for any more

function element(parent, tag, name) {
  const made = document.createElement(tag);
  made.className = name;
  parent.append(made);
  return made;
}

function render({ model, el }) {
  if (!document.getElementById("dl-slider-style")) {
    const style = element(document.head, "style", "");
    style.id = "dl-slider-style";
    style.textContent = STYLE;
  }
  const root = element(el, "div", "dl-slider");
  root.setAttribute("data-lm-suppress-shortcuts", "true"); // or arrows would go to another cell of the notebook
  const label = element(root, "span", "dl-label");
  const track = element(root, "div", "dl-track");
  const thumb = element(track, "div", "dl-thumb");
  const box = element(root, "input", "dl-number");
  const play = element(root, "button", "dl-play");
  const refusal = element(root, "span", "dl-refusal");
  track.setAttribute("role", "slider");
  refusal.setAttribute("role", "alert");
  box.inputMode = "decimal";

  const view = Math.random().toString(36).slice(2);
  let count = 0; // of the moves sent
  let waiting = null; // {count, since} of the newest move that Python has not acknowledged
  let mine = null; // the value under the hand
  let dragging = false;
  let restless = false; // a move that was sent, or held back, was not the last of its drag
  let timer = null;

  const stops = () => model.get("stops");
  const words = () => typeof stops()[0] === "string";
  const value = () => (dragging || waiting ? mine : model.get("value"));
  const last = () => stops().length - 1;

  function slot(of) { // a stop's number, with a fraction between two stops
    const all = stops();
    if (words()) return Math.max(0, all.indexOf(of));
    const [x, numbers] = [order(of), all.map(order)];
    const above = numbers.findIndex((stop) => stop >= x);
    if (above <= 0) return above < 0 ? last() : 0;
    if (numbers[above] === x || numbers[above] === Infinity) return above;
    return above - (numbers[above] - x) / (numbers[above] - numbers[above - 1]);
  }

  function paint() {
    const [now, off, name] = [value(), model.get("disabled"), model.get("label")];
    const text = show(now);
    root.title = model.get("help");
    root.className = `dl-slider${off ? " dl-off" : ""}${words() ? " dl-words" : ""}${stops().length ? "" : " dl-bare"}`;
    label.textContent = name;
    track.hidden = !stops().length;
    // One tab stop a control: the track, from which Enter or a digit leads to the box, or the box of words.
    const numeric = stops().length && !words();
    track.tabIndex = numeric && !off ? 0 : -1;
    track.setAttribute("aria-hidden", !numeric);
    box.tabIndex = numeric ? -1 : 0;
    box.disabled = play.disabled = off;
    box.setAttribute("aria-label", numeric ? `${name}, typed` : name);
    if (document.activeElement !== box) box.value = text;
    play.hidden = !model.get("play");
    play.textContent = timer ? "❚❚" : "▶";
    play.setAttribute("aria-label", `${timer ? "pause" : "play"} ${name}`);
    if (!stops().length) return;
    const at = slot(now);
    thumb.style.left = `${last() ? (100 * at) / last() : 0}%`;
    if (!numeric) return;
    const numbers = stops().filter((stop) => typeof stop === "number");
    const [unit, last_number] = [model.get("unit"), numbers.at(-1)];
    const number = now === "∞" ? last_number : now;
    Object.entries({
      label: name, disabled: off, valuemin: numbers[0], valuemax: Math.max(last_number, number),
      valuenow: number, valuetext: unit ? `${text} ${unit}` : text,
    }).forEach(([key, given]) => track.setAttribute(`aria-${key}`, given));
  }

  function move(to, moving = false) {
    if (to === undefined || model.get("disabled")) return;
    const same = show(to) === show(value());
    [mine, restless, refusal.textContent] = [to, moving, ""];
    // Under a moving hand one move is on its way at a time; where the hand rests is always sent.
    if (!(same && moving) && !(moving && waiting && Date.now() - waiting.since < STALE)) {
      waiting = { count: ++count, since: Date.now() };
      model.send({ view, count, value: to, moving });
    }
    paint();
  }

  function under(event) {
    const edge = track.getBoundingClientRect();
    const part = Math.min(1, Math.max(0, (event.clientX - edge.left) / edge.width));
    return stops()[Math.round(part * last())];
  }

  track.addEventListener("pointerdown", (event) => {
    if (event.button || model.get("disabled")) return;
    event.preventDefault();
    track.focus({ focusVisible: false });
    track.setPointerCapture(event.pointerId);
    mine = value();
    dragging = true;
    move(under(event), true);
  });
  track.addEventListener("pointermove", (event) => { if (dragging) move(under(event), true); });
  const release = () => {
    if (!dragging) return;
    move(mine);
    dragging = false;
  };
  track.addEventListener("pointerup", release);
  track.addEventListener("pointercancel", release);
  function step(event) { // what a key means: a function that gives the value it leads to
    if (event.ctrlKey || event.metaKey || event.altKey) return undefined;
    const [all, at, page] = [stops(), slot(value()), Math.max(1, Math.round(last() / 10))];
    const by = (steps) => all[Math.min(last(), Math.max(0, steps > 0 ? Math.floor(at) + steps : Math.ceil(at) + steps))];
    return {
      ArrowRight: () => by(1), ArrowUp: () => by(1), ArrowLeft: () => by(-1), ArrowDown: () => by(-1),
      PageUp: () => by(page), PageDown: () => by(-page), Home: () => all[0], End: () => all[last()],
    }[event.key];
  }
  track.addEventListener("keydown", (event) => {
    const to = step(event);
    if (to) {
      event.preventDefault();
      move(to(), event.repeat);
    } else if (event.key === "Enter" || /^[\d.]$/.test(event.key)) {
      box.focus();
      if (event.key === "Enter") event.preventDefault();
    }
    event.stopPropagation();
  });
  track.addEventListener("keyup", () => { if (restless && !dragging) move(mine); });

  function read(text) { // the value that is typed, or why it is none
    const typed = text.trim();
    const known = stops().find((stop) => show(stop) === typed || (stop === "∞" && /^inf(inity)?$/i.test(typed)));
    if (known !== undefined) return [known];
    if (words()) return [undefined, `“${typed}” is not among ${stops()[0]} … ${stops().at(-1)}`];
    const [number, [low, high]] = [typed === "" ? NaN : Number(typed.replace(",", ".")), model.get("limits")];
    const kind = model.get("whole") ? "a whole number" : "a number";
    const fits = model.get("whole") ? Number.isInteger(number) : Number.isFinite(number);
    return fits && number >= low && number <= high
      ? [number] : [undefined, `“${typed}” is not ${kind} from ${show(low)} to ${show(high)}`];
  }

  box.addEventListener("focus", () => box.select());
  box.addEventListener("keydown", (event) => {
    event.stopPropagation();
    if (words() && /^(Arrow(Up|Down)|Page)/.test(event.key)) {
      event.preventDefault();
      move(step(event)(), event.repeat);
      box.value = show(value());
    }
    if (event.key === "Escape") box.value = show(value());
    if (event.key === "Enter" || event.key === "Escape") if (track.tabIndex === 0) track.focus(); else enter();
  });
  function enter() {
    if (box.value === show(value())) return;
    const [typed, why] = read(box.value);
    box.value = show(typed === undefined ? value() : typed);
    if (typed === undefined) refusal.textContent = why;
    else move(typed);
  }
  box.addEventListener("blur", enter);

  play.addEventListener("click", () => {
    const stop = () => { clearInterval(timer); timer = null; };
    if (timer) stop();
    else {
      if (slot(value()) >= last()) move(stops()[0], true);
      timer = setInterval(() => {
        const next = Math.floor(slot(value())) + 1;
        if (next >= last()) stop();
        move(stops()[Math.min(next, last())], next < last());
      }, model.get("play"));
    }
    paint();
  });

  function told() {
    const [by, number] = model.get("heard");
    if (waiting && by === view && number === waiting.count) waiting = null;
    paint();
  }
  const traits = ["value", "stops", "limits", "label", "help", "unit", "disabled", "heard"];
  traits.forEach((name) => model.on(`change:${name}`, told));
  paint();
  return () => {
    clearInterval(timer);
    traits.forEach((name) => model.off(`change:${name}`, told));
  };
}

export default { render };
