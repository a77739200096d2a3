// What is drawn as SVG: the picture with its visual tokens over it, and bars.

const SVG = "http://www.w3.org/2000/svg";

/** Letters of a token map -> the words of the project. */
export const FATES = { r: "retained", s: "skipped", m: "merged", d: "dropped" };

/**
 * Show a picture, and over it what became of each visual token where a map `{ rows, columns, fates, box }` is given.
 *
 * `box` is what part of the picture the grid covers, as shares `[left, top, right, bottom]`: all of it when it is
 * missing. It may reach beyond the picture where that was padded; what lies outside the box was not seen.
 */
export function drawStage(stage, picture, map) {
  const { width, height } = picture;
  const whole = [0, 0, width, height];
  const image = element("image", { href: picture.url, width, height });
  const grid = map?.box ? map.box.map((share, side) => share * whole[2 + (side % 2)]) : whole;
  stage.setAttribute("viewBox", viewBox(union(grid, whole)));
  stage.setAttribute("aria-label", `The picture, ${width} by ${height} pixels${map ? `; ${counts(map)}` : ""}`);
  stage.replaceChildren(image, ...(map ? [tokens(map, grid, whole)] : []));
}

/** A bar of parts `{ name, amount }` that fills `most`, or its own sum. */
export function partBar(parts, label, most = null) {
  const whole = most ?? parts.reduce((sum, part) => sum + part.amount, 0);
  const shape = { viewBox: "0 0 100 1", preserveAspectRatio: "none" };
  const svg = element("svg", { class: "bar", role: "img", "aria-label": label, ...shape });
  let x = 0;
  for (const { name, amount } of parts) {
    const width = whole ? (100 * amount) / whole : 0;
    svg.append(element("rect", { class: `part-${name}`, x, width, height: 1 }));
    x += width;
  }
  return svg;
}

/** Rectangles here are `[left, top, right, bottom]` in pixels of the picture. */
function tokens(map, grid, whole) {
  const [left, top, right, bottom] = grid;
  const { rows, columns, fates } = map;
  const cells = element("svg", {
    x: left, y: top, width: right - left, height: bottom - top,
    viewBox: `0 0 ${columns} ${rows}`, preserveAspectRatio: "none",
  });
  [...fates].forEach((letter, place) => {
    const [x, y] = [place % columns, Math.floor(place / columns)];
    cells.append(element("rect", { class: `cell ${FATES[letter]}`, x, y, width: 1, height: 1 }));
  });
  cells.append(element("path", { class: "around-retained", d: border(map) }));
  const unseen = outline(whole) + outline(intersection(grid, whole));
  const group = element("g", { class: "tokens" });
  group.append(element("path", { class: "unseen-part", "fill-rule": "evenodd", d: unseen }), cells);
  return group;
}

/** A path around the regions of retained tokens, in units of one token. */
function border({ rows, columns, fates }) {
  const isRetained = (x, y) => x >= 0 && x < columns && y >= 0 && fates[y * columns + x] === "r";
  let path = "";
  for (let y = 0; y <= rows; y++) {
    for (let x = 0; x <= columns; x++) {
      if (isRetained(x, y) !== isRetained(x, y - 1)) path += `M${x} ${y}h1`;
      if (isRetained(x, y) !== isRetained(x - 1, y)) path += `M${x} ${y}v1`;
    }
  }
  return path;
}

function outline([left, top, right, bottom]) {
  return `M${left} ${top}H${right}V${bottom}H${left}Z`;
}

function intersection(one, other) {
  return one.map((side, at) => (at < 2 ? Math.max : Math.min)(side, other[at]));
}

function union(one, other) {
  return one.map((side, at) => (at < 2 ? Math.min : Math.max)(side, other[at]));
}

function viewBox([left, top, right, bottom]) {
  return `${left} ${top} ${right - left} ${bottom - top}`;
}

function counts({ fates }) {
  const found = Object.entries(FATES).map(([letter, fate]) => [fates.split(letter).length - 1, fate]);
  return `visual tokens: ${found.filter(([count]) => count).map((pair) => pair.join(" ")).join(", ")}`;
}

function element(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  return made;
}
