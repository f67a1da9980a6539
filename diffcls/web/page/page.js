// The page: what is asked, and what the server's events do.

import * as evidence from "./evidence.js";
import * as picture from "./picture.js";
import * as race from "./race.js";

const byId = (id) => document.getElementById(id);
const COLOURS = {
  red: "#e12828", orange: "#f5911e", yellow: "#f0e13c", green: "#2daa3c", cyan: "#3ccdd7", blue: "#2d4be1", purple: "#9637be",
  white: "#f0f0f0",
};

const facts = await (await fetch("facts.json")).json();
let running = null; // AbortController of the request under way
let saved = null; // object URL of the picture that was classified

// ---- model, classes and prompts

const model = () => facts.models.find((one) => one.name === document.querySelector('input[name="model"]:checked').value);

function offerModels() {
  byId("models").replaceChildren(...facts.models.map((one, i) => {
    const label = document.createElement("label");
    const input = Object.assign(document.createElement("input"), { type: "radio", name: "model", value: one.name, checked: i === 0 });
    input.addEventListener("change", offerModel);
    label.append(input, ` ${one.name}`);
    return label;
  }));
}

function offerModel() {
  const { name, classes, words } = model();
  const free = classes.length === 0;
  byId("prompts-legend").textContent = free ? "Prompts" : "Classes";
  byId("class-list").hidden = free;
  byId("prompt-box").hidden = !free;
  byId("words").textContent = `Words that it knows: ${words.join(", ")}.`;
  byId("class-list").replaceChildren(...[`All ${classes.length}`, ...classes].map(chip));
  picture.setColours(Object.entries(COLOURS).filter(([colour]) => words.includes(colour)));
  const examples = facts.examples.filter((one) => one.model === name);
  byId("examples-box").hidden = examples.length === 0;
  byId("examples").replaceChildren(...examples.map(exampleButton));
  if (free) writePrompts(examples[0]?.prompts ?? []);
}

/** The first chip stands for all classes, and is on when no other is. */
function chip(text, i) {
  const button = Object.assign(document.createElement("button"), { type: "button", textContent: text });
  button.setAttribute("aria-pressed", i === 0);
  button.addEventListener("click", () => {
    const [all, ...others] = byId("class-list").children;
    const press = (one, on) => one.setAttribute("aria-pressed", on);
    if (i === 0) others.forEach((one) => press(one, false));
    else press(button, button.ariaPressed !== "true");
    press(all, others.every((one) => one.ariaPressed !== "true"));
  });
  return button;
}

function exampleButton(example) {
  const button = Object.assign(document.createElement("button"), { type: "button", title: example.shows });
  button.append(Object.assign(new Image(), { src: example.address, alt: `Example: ${example.shows}` }));
  button.addEventListener("click", async () => {
    picture.hold(await (await fetch(example.address)).blob(), example.address);
    if (example.prompts) writePrompts(example.prompts);
    byId("ask").requestSubmit();
  });
  return button;
}

function writePrompts(prompts) {
  byId("prompts").value = prompts.join("\n");
}

/** A list of texts, or null: all classes. */
function prompts() {
  if (model().classes.length === 0) return byId("prompts").value.split("\n").map((one) => one.trim()).filter(Boolean);
  const chosen = [...byId("class-list").children].slice(1).filter((one) => one.ariaPressed === "true");
  return chosen.length ? chosen.map((one) => one.textContent) : null;
}

// ---- asking

async function ask() {
  running?.abort();
  const control = (running = new AbortController());
  begin();
  try {
    const asked = await picture.current();
    const problem = check(asked);
    if (problem) throw new Error(problem);
    const query = new URLSearchParams({ model: model().name, name: asked.name });
    const texts = prompts();
    if (texts) query.set("prompts", JSON.stringify(texts));
    say("Sending the picture …");
    const response = await fetch(`classify?${query}`, { method: "POST", body: asked.blob, signal: control.signal });
    if (!response.ok) throw new Error(await reason(response));
    keep(asked);
    await follow(lines(response.body), control.signal);
  } catch (error) {
    if (running !== control) return; // another question was asked meanwhile
    if (error.name === "AbortError") say("Stopped.");
    else complain(error instanceof TypeError ? "The server does not answer: is diffcls demo --web still running?" : error.message);
  }
  if (running === control) finish();
}

/** Of a refusal; what the library below ours refuses has no sentence. */
async function reason(response) {
  const text = await response.text();
  return text.startsWith("{") ? JSON.parse(text).error : `The server refuses: ${text || response.statusText}.`;
}

function check(asked) {
  const texts = prompts();
  if (!asked) return picture.source() === "draw" ? "Draw something first." : "Choose a picture first, or take an example.";
  if (asked.blob.size > facts.max_bytes)
    return `${asked.name} has ${(asked.blob.size / 2 ** 20).toFixed(0)} MB, more than the ${facts.max_bytes / 2 ** 20} that this page takes.`;
  if (texts && texts.length < 2) return "Name two or more: a race needs at least two.";
  if (texts && texts.length > facts.max_prompts) return `${texts.length} prompts are more than the ${facts.max_prompts} that this page takes.`;
  return null;
}

/** Lines of JSON as they arrive. */
async function* lines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    const whole = text.split("\n");
    text = whole.pop();
    yield* whole.map((line) => JSON.parse(line));
  }
}

async function follow(events, signal) {
  let seen = null;
  let seconds = 0;
  for await (const told of events) {
    if (signal.aborted) throw new DOMException("", "AbortError");
    if (told.event === "error") throw new Error(told.message);
    if (told.event === "loading") say(`Loading ${told.model}, some seconds the first time …`);
    if (told.event === "start") {
      seen = told.seen;
      byId("waiting").classList.add("hidden"); // to the eye: its sentences are still read aloud
      race.begin(told);
      lookAtAnswer();
    }
    if (told.event === "round") {
      seconds = told.seconds;
      say(await race.round(told));
    }
    if (told.event === "result") {
      race.end(told, seconds);
      byId("code").textContent = told.code;
      byId("code-box").hidden = false;
      say(`${told.label}, ${told.kind} ${told.probabilities[told.index].toFixed(3)}.`);
    }
    if (told.event === "evidence") await evidence.show(told, seen);
  }
}

function begin() {
  for (const id of ["problem", "race", "evidence", "code-box"]) byId(id).hidden = true;
  byId("waiting").classList.remove("hidden");
  byId("stop").disabled = false;
  byId("answer").ariaBusy = "true";
  byId("copied").textContent = "";
  lookAtAnswer();
}

/** On a narrow screen it is below what was asked, and only once it has its rows can the page scroll to it. */
function lookAtAnswer() {
  const { top } = byId("answer").getBoundingClientRect();
  if (top < 0 || top > innerHeight / 2) byId("answer").scrollIntoView();
}

function finish() {
  running = null;
  byId("stop").disabled = true;
  byId("answer").ariaBusy = "false";
}

function keep({ blob, name }) {
  URL.revokeObjectURL(saved);
  saved = URL.createObjectURL(blob);
  Object.assign(byId("save"), { href: saved, download: name, textContent: `Save ${name}` });
}

function say(sentence) {
  byId("said").textContent = sentence;
}

function complain(sentence) {
  byId("waiting").classList.add("hidden");
  byId("problem").textContent = sentence;
  byId("problem").hidden = false;
}

// ---- wiring

offerModels();
offerModel();
picture.listen(complain);
byId("file-help").textContent = `${facts.formats.join(", ")}; at most ${facts.max_bytes / 2 ** 20} MB.`;
byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
byId("stop").addEventListener("click", () => running?.abort());
byId("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(byId("code").textContent);
    byId("copied").textContent = "Copied.";
  } catch {
    getSelection().selectAllChildren(byId("code"));
    byId("copied").textContent = "Press Ctrl+C: the browser does not let the page do it.";
  }
});
byId("go").disabled = false;
