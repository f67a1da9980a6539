// The race: a table of classes that is drawn again after every round, best first.

const byId = (id) => document.getElementById(id);
const DWELL = 450; // ms that a round stays to be seen: most races take less than a round of looking
const ENDS = { decided: "Decided", pool_exhausted: "The whole pool was read", budget: "Out of budget" };
const signed = (number) => (number < 0 ? "−" : "+") + Math.abs(number).toPrecision(2);

let rows = []; // a table row a class, in the caller's order
let most = 0; // evaluations of the whole pool

/** Begins with all classes alive. */
export function begin(start) {
  most = start.max_evals;
  byId("seen").hidden = !start.seen;
  if (start.seen) byId("seen").src = start.seen;
  byId("label").textContent = `${start.classes.length} classes`;
  byId("facts").textContent = "Round 1 is under way.";
  byId("notes").replaceChildren();
  rows = start.classes.map((name) => {
    const row = document.createElement("tr");
    const cells = Array.from({ length: 6 }, () => document.createElement("td"));
    const [title, bar, , , , state] = cells;
    title.textContent = name;
    bar.innerHTML = '<div class="bar"><i></i></div>';
    state.textContent = "in the race";
    row.append(...cells);
    return row;
  });
  byId("rows").replaceChildren(...rows);
  byId("race").hidden = false;
}

/** One round; gives the sentence for those who listen instead of looking. */
export async function round(told) {
  draw(told);
  const left = told.alive.filter(Boolean).length;
  const sentence = `Round ${told.trace.length}: ${left} of ${rows.length} classes left, ${told.n_evals} evaluations.`;
  byId("label").textContent = left > 1 ? `${left} classes left` : rows[told.index].firstChild.textContent;
  byId("facts").textContent = sentence;
  await new Promise((resolve) => setTimeout(resolve, DWELL));
  return sentence;
}

/** The end: `seconds` are the race's own. */
export function end(result, seconds) {
  draw(result);
  rows[result.index].lastChild.textContent = "the answer";
  byId("kind").textContent = result.kind;
  byId("label").textContent = result.label;
  const times = most / result.n_evals;
  const saved = times > 1.05 ? ` instead of ${most.toLocaleString("en")}: ${times.toFixed(times < 10 ? 1 : 0)} times fewer` : "";
  const n = result.trace.length;
  byId("facts").textContent =
    `${ENDS[result.status]} in ${n} round${n > 1 ? "s" : ""} and ${seconds.toFixed(2)} s, ${result.n_evals} evaluations${saved}`;
  byId("notes").replaceChildren(...result.warnings.map((text) => {
    const item = document.createElement("li");
    item.textContent = text;
    return item;
  }));
}

function draw(told) {
  const order = rows.map((_, i) => i).sort((i, j) =>
    told.alive[j] - told.alive[i] || told.n_trials[j] - told.n_trials[i] || told.probabilities[j] - told.probabilities[i]);
  const before = rows.map((row) => row.getBoundingClientRect().top);
  rows.forEach((row, i) => {
    const [, bar, share, above, trials, state] = row.children;
    bar.querySelector("i").style.width = `${100 * told.probabilities[i]}%`;
    share.textContent = told.probabilities[i].toFixed(3);
    above.textContent = i === told.index || told.excess[i] === null ? "" : signed(told.excess[i]);
    trials.textContent = told.n_trials[i];
    state.textContent = told.alive[i] ? "in the race" : told.n_trials[i] ? "dropped" : "not asked";
    row.classList.toggle("dropped", !told.alive[i]);
    row.classList.toggle("best", i === told.index);
  });
  byId("rows").replaceChildren(...order.map((i) => rows[i]));
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  rows.forEach((row, i) => {
    const moved = before[i] - row.getBoundingClientRect().top;
    if (moved) row.animate([{ transform: `translateY(${moved}px)` }, { transform: "none" }], { duration: 300, easing: "ease-out" });
  });
}
