// What the page side of every widget shares: nodes, numbers, one rule for keys, one voice, labelled controls.
// The files of a widget are sent as one module (explorer.py, theatre.py): no dependency and no request.

const SVG = "http://www.w3.org/2000/svg";

function put(node, attributes, ...children) {
  for (const [name, value] of Object.entries(attributes)) if (value !== null) node.setAttribute(name, value);
  node.append(...children);
  return node;
}
const el = (tag, attributes = {}, ...children) => put(document.createElement(tag), attributes, ...children);
const svg = (tag, attributes = {}, ...children) => put(document.createElementNS(SVG, tag), attributes, ...children);

// A number as controls.py writes it: four digits, but never fewer than stand before the point.
export function show(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-5 || size >= 1e9)) {
    const [number, power] = value.toExponential(3).split("e");
    const raised = [...String(Number(power))].map((c) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(c)]).join("");
    return `${Number(number)} · 10${raised}`;
  }
  if (size >= 999.95) return (Math.sign(value) * Math.round(size)).toLocaleString("en-US");
  return (Number(value.toPrecision(4)) + 0).toLocaleString("en-US", { maximumSignificantDigits: 4 });
}

// One rule for keys, for every part of a widget that can have the focus: with Ctrl, Alt or Meta they are the host's (save,
// undo …), all others are ours. Arrows, Home, End and Page move what has the focus, and no letter may insert or delete a cell.
// Hosts listen on the document, Notebook 7 in the capture phase, before any node hears: only the window comes earlier. What
// the browser itself does with a key (move a slider, press a button, go to the next part) is not touched by stopping it here.
function guard(root) {
  const hear = (event) => {
    if (!event.composedPath().includes(root) || event.ctrlKey || event.altKey || event.metaKey) return;
    event.stopPropagation();
    if (event.target.takes?.(event.key)) event.preventDefault();           // a part that moves by keys itself: a chart
  };
  window.addEventListener("keydown", hear, true);
  return () => window.removeEventListener("keydown", hear, true);
}

// Text and page colour come from one hand: both from the host, or both from explorer.css.
function dress(root) {
  const style = getComputedStyle(document.body), given = (name) => style.getPropertyValue(name).trim() !== "";
  if (given("--jp-ui-font-color1") && given("--jp-layout-color1")) root.classList.add("flx-hosted");
}

// The one live region of a widget: the newest words, at most every four seconds; at once what the reader has just asked for.
function voice() {
  const node = el("div", { class: "flx-voice", role: "status" });
  let timer = null, last = 0, words = "";
  const speak = () => { timer = null; last = Date.now(); if (node.textContent !== words) node.textContent = words; };
  const say = (text, asked = false) => {
    words = text;
    if (asked) { clearTimeout(timer); speak(); }
    else timer ??= setTimeout(speak, Math.max(400, last + 4000 - Date.now()));
  };
  return { node, say, end: () => clearTimeout(timer) };
}

// A native control inside its label, so that no two widgets of a page can share an id. The value beside it is for the eye:
// a screen reader says that of the control itself.
function labelled(kind, text, input, value = "") {
  return el("label", { class: `flx-control flx-${kind}` }, el("span", {}, text), input, value);
}

// Options that cannot be chosen carry a reason, [key, text, reason]: greyed, and the reason is said in the list.
function fill(select, options) {
  const before = select.value;
  select.replaceChildren(...options.map(([key, text, reason]) =>
    el("option", { value: key, disabled: reason ? "" : null }, reason ? `${text}: ${reason}` : text)));
  select.value = before;
}
