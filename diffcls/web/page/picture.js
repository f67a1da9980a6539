// The picture in hand: chosen, dropped, pasted, drawn or photographed.

const byId = (id) => document.getElementById(id);
const PAPER = "#141414"; // grey, as the models' backgrounds are
const PEN = 22; // of 280 pixels: as thick, relatively, as the digits that the model knows

let held = null; // {blob, name} of a file, an example or a photo
let touched = false; // something was drawn
let camera = null; // the MediaStream while it is on

/** What is to be classified: {blob, name}, or null when there is nothing. */
export async function current() {
  if (source() !== "draw") return held;
  return touched ? { blob: await png(byId("canvas")), name: "drawing.png" } : null;
}

export function source() {
  return document.querySelector('input[name="source"]:checked').value;
}

/** Holds a picture and shows it; one that the browser can not show is held too: the server says what is wrong with it. */
export function hold(blob, name) {
  held = { blob, name };
  choose("file");
  const preview = byId("preview");
  URL.revokeObjectURL(preview.src);
  preview.onload = () => preview.classList.toggle("small", preview.naturalWidth < 100);
  preview.onerror = () => show(false);
  preview.src = URL.createObjectURL(blob);
  preview.alt = `The chosen picture, ${name}`;
  show(true);

  function show(seen) {
    preview.hidden = !seen;
    byId("invitation").hidden = seen;
    byId("invited").textContent = `${name} can not be shown here`;
  }
}

/** Pens of these colours ([[name, css], ...]); without any, a white one. */
export function setColours(colours) {
  const box = byId("colours");
  box.hidden = colours.length === 0;
  box.replaceChildren(...colours.map(([name, css], i) => {
    const label = document.createElement("label");
    const input = Object.assign(document.createElement("input"), { type: "radio", name: "colour", value: css, checked: i === 0 });
    input.style.background = css;
    input.setAttribute("aria-label", name);
    input.addEventListener("change", () => { pen.colour = css; });
    label.title = name;
    label.append(input);
    return label;
  }));
  pen.colour = colours.length ? colours[0][1] : "#ffffff";
}

function choose(value) {
  document.querySelector(`input[name="source"][value="${value}"]`).checked = true;
  for (const name of ["file", "draw", "camera"]) byId(`from-${name}`).hidden = name !== value;
  if (value !== "camera") stopCamera();
}

function png(canvas) {
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

// ---- file, drop, paste

function takeFiles(files) {
  const file = [...files].find((one) => one instanceof File);
  if (file) hold(file, file.name || "pasted.png");
}

function listenForFiles() {
  const drop = byId("drop");
  byId("file").addEventListener("change", (event) => {
    takeFiles(event.target.files);
    event.target.value = ""; // the same file may be chosen again
  });
  for (const kind of ["dragenter", "dragover"]) {
    drop.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.add("over"); });
  }
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    takeFiles(event.dataTransfer.files);
  });
  for (const kind of ["dragover", "drop"]) document.addEventListener(kind, (event) => event.preventDefault());
  document.addEventListener("paste", (event) => takeFiles(event.clipboardData?.files ?? []));
}

// ---- drawing: by pointer, and by arrow keys and the space bar

const pen = { x: 140, y: 140, down: false, colour: "#ffffff" };
let drawn = null; // what is on paper, without the keyboard's cursor

function line(x, y) {
  const g = drawn.getContext("2d");
  Object.assign(g, { lineWidth: PEN, lineCap: "round", lineJoin: "round", strokeStyle: pen.colour, fillStyle: pen.colour });
  g.beginPath();
  g.moveTo(pen.x, pen.y);
  g.lineTo(x, y);
  g.stroke();
  g.beginPath(); // a dot where it goes nowhere, which a stroke leaves out
  g.arc(x, y, PEN / 2, 0, 2 * Math.PI);
  g.fill();
  touched = true;
  Object.assign(pen, { x, y });
}

function paint() {
  byId("canvas").getContext("2d").drawImage(drawn, 0, 0);
}

function clear() {
  const g = drawn.getContext("2d");
  g.fillStyle = PAPER;
  g.fillRect(0, 0, drawn.width, drawn.height);
  touched = false;
  paint();
}

function listenForDrawing() {
  const canvas = byId("canvas");
  drawn = Object.assign(document.createElement("canvas"), { width: canvas.width, height: canvas.height });
  clear();
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * canvas.width, ((event.clientY - box.top) / box.height) * canvas.height];
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    [pen.x, pen.y] = place(event);
    pen.down = true;
    line(pen.x, pen.y);
    paint();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!canvas.hasPointerCapture(event.pointerId)) return;
    for (const part of event.getCoalescedEvents?.() ?? [event]) line(...place(part));
    paint();
  });
  for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, () => { pen.down = false; });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-8, 0], ArrowRight: [8, 0], ArrowUp: [0, -8], ArrowDown: [0, 8] }[event.key];
    if (event.key === " ") pen.down = !pen.down;
    else if (!step) return;
    event.preventDefault();
    const [dx, dy] = step ?? [0, 0];
    const inside = (at, size) => Math.min(Math.max(at, PEN / 2), size - PEN / 2);
    const [x, y] = [inside(pen.x + dx, canvas.width), inside(pen.y + dy, canvas.height)];
    if (pen.down) line(x, y);
    Object.assign(pen, { x, y });
    paint();
    cursor(canvas.getContext("2d"));
  });
  canvas.addEventListener("blur", () => { pen.down = false; paint(); });
  byId("clear").addEventListener("click", clear);
}

/** Where the keyboard's pen is: filled when it is down.  Not part of the drawing: `current` reads a canvas without focus. */
function cursor(g) {
  g.beginPath();
  g.arc(pen.x, pen.y, PEN / 2, 0, 2 * Math.PI);
  Object.assign(g, { lineWidth: 2, strokeStyle: "#5cb3ec", fillStyle: pen.colour });
  if (pen.down) g.fill();
  g.stroke();
}

// ---- camera

async function useCamera() {
  const video = byId("video");
  if (!camera) {
    camera = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    video.srcObject = camera;
    await video.play();
    byId("shoot").textContent = "Take the photo";
    return;
  }
  const side = Math.min(video.videoWidth, video.videoHeight);
  const frame = Object.assign(document.createElement("canvas"), { width: side, height: side });
  const [left, top] = [(video.videoWidth - side) / 2, (video.videoHeight - side) / 2];
  frame.getContext("2d").drawImage(video, left, top, side, side, 0, 0, side, side);
  hold(await png(frame), "photo.png");
}

function stopCamera() {
  camera?.getTracks().forEach((track) => track.stop());
  camera = null;
  byId("video").srcObject = null;
  byId("shoot").textContent = "Start the camera";
}

/** `complain(sentence)` is told when there is no camera. */
export function listen(complain) {
  listenForFiles();
  listenForDrawing();
  for (const radio of document.querySelectorAll('input[name="source"]')) {
    radio.addEventListener("change", () => choose(radio.value));
  }
  byId("shoot").addEventListener("click", () => {
    useCamera().catch((error) => complain(`there is no picture from the camera: ${error.message}`));
  });
}
