// The error map: marks as large as the evidence, filled for one class and hollow for the other, over the picture.

const byId = (id) => document.getElementById(id);
const FAINT = 0.06; // of the largest: smaller marks are not drawn

let shown = null; // {evidence, picture}, drawn again when the colours change
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => shown && draw(shown));

export async function show(evidence, address) {
  const picture = new Image();
  if (address) {
    picture.src = address;
    await picture.decode();
  }
  shown = { evidence, picture: address ? picture : null };
  byId("class-a").textContent = evidence.a;
  byId("class-b").textContent = evidence.b;
  const [winner, other] = evidence.mean >= 0 ? [evidence.a, evidence.b] : [evidence.b, evidence.a];
  byId("balance").textContent =
    `On the whole it speaks for ${winner}: its loss is ${Math.abs(evidence.mean).toPrecision(3)} below that of ${other}, ` +
    `over ${evidence.n_evals} evaluations.`;
  byId("evidence").hidden = false;
  draw(shown);
}

function draw({ evidence, picture }) {
  const canvas = byId("map");
  const g = canvas.getContext("2d");
  const colours = getComputedStyle(document.documentElement);
  const [n, m] = [evidence.map.length, evidence.map[0].length];
  const cell = Math.min(canvas.width / m, canvas.height / n);
  const largest = Math.max(...evidence.map.flat().map(Math.abs)) || 1;
  g.clearRect(0, 0, canvas.width, canvas.height);
  g.imageSmoothingEnabled = false;
  g.globalAlpha = 0.3;
  if (picture) g.drawImage(picture, 0, 0, cell * m, cell * n);
  g.globalAlpha = 1;
  g.fillStyle = colours.getPropertyValue("--blue");
  g.strokeStyle = colours.getPropertyValue("--vermilion");
  g.lineWidth = cell / 6;
  evidence.map.forEach((row, y) => row.forEach((value, x) => {
    const share = Math.abs(value) / largest;
    if (share < FAINT) return;
    const side = cell * 0.92 * Math.sqrt(share);
    const [left, top] = [(x + 0.5) * cell - side / 2, (y + 0.5) * cell - side / 2];
    const inner = Math.max(side - g.lineWidth, 0.5);
    if (value > 0) g.fillRect(left, top, side, side);
    else g.strokeRect(left + (side - inner) / 2, top + (side - inner) / 2, inner, inner);
  }));
  canvas.setAttribute("aria-label",
    `Map over the picture. For ${evidence.a}: ${where(evidence.map, 1)}. For ${evidence.b}: ${where(evidence.map, -1)}.`);
}

/** In words: the ninth of the picture that has most of one sign's evidence. */
function where(map, sign) {
  const [n, m] = [map.length, map[0].length];
  const sums = new Array(9).fill(0);
  map.forEach((row, y) => row.forEach((value, x) => {
    sums[3 * Math.floor((3 * y) / n) + Math.floor((3 * x) / m)] += Math.max(sign * value, 0);
  }));
  const best = sums.indexOf(Math.max(...sums));
  if (!(sums[best] > 0)) return "nothing";
  const [row, column] = [["top", "middle", "bottom"][Math.floor(best / 3)], ["left", "centre", "right"][best % 3]];
  return `mostly ${row} ${column}`;
}
