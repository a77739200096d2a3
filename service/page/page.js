// What the visitor does, and what then happens. It knows every part of the page and leaves the work to the others.

import { billOf, keysOf, verdictOf } from "./bill.js";
import { drawStage } from "./drawing.js";
import { Lane } from "./lane.js";
import { drawSample, pictureOf, PictureError, readPicture } from "./picture.js";
import { answer, listModels } from "./service.js";
import { secondsText } from "./units.js";

const at = (id) => document.getElementById(id);
const IN_TURN = "One after the other, skipping first: what the second finds warmed up serves all tokens.";
const AT_ONCE = "At the same time: the two shared the machine.";

let models = [];
let key = "";
let picture = null;
let picturesChosen = 0;
let map = null;
let running = null; // the AbortController of what is being answered
let afterKey = null; // what to do again once there is a key

// The picture

async function choose(file) {
  const choice = ++picturesChosen;
  say("picture-wrong", "");
  try {
    const read = await readPicture(file);
    if (choice === picturesChosen) show(read);
  } catch (error) {
    if (!(error instanceof PictureError)) throw error;
    say("picture-wrong", error.message);
  }
}

function chooseSample() {
  picturesChosen++;
  say("picture-wrong", "");
  show(pictureOf(at("sample"), "drawn by this page, 384 × 384 pixels"));
  at("question").focus();
  at("question").select();
}

function show(chosen) {
  stop();
  clear();
  picture = chosen;
  at("picture-note").textContent = picture.note;
  at("invitation").hidden = true;
  at("stage").removeAttribute("hidden");
  at("sample-again").hidden = false;
  drawTokens(null);
}

function drawTokens(found) {
  map = found;
  drawStage(at("stage"), picture, at("show-tokens").checked ? map : null);
  at("tokens-field").hidden = at("keys").hidden = !map;
  at("keys").replaceChildren(...(map ? keysOf(map) : []));
}

// Questions

/** Start afresh: `work` is given new lanes and a signal, and stops whatever ran before. */
async function start(work) {
  if (!isReady()) return;
  stop();
  clear();
  drawTokens(null);
  const turn = (running = new AbortController());
  at("stop").hidden = false;
  at("status").textContent = "Answering …";
  try {
    if (!models.length) await loadModels();
    at("status").textContent = await work(turn.signal);
  } catch (error) {
    if (running === turn) explain(error, () => start(work));
  } finally {
    if (running === turn) finish();
  }
}

async function ask(signal) {
  const setting = at("skip").value;
  const lane = addLane(setting === "off" ? "All tokens" : "Skipping", setting);
  await follow(lane, signal);
  present(lane);
  return `Answered in ${secondsText(lane.seconds)}.`;
}

async function race(signal) {
  const chosen = at("skip").value;
  const skipping = addLane("Skipping", chosen === "off" ? ownSetting() : chosen);
  const allTokens = addLane("All tokens", "off");
  const atOnce = at("at-once").checked;
  if (atOnce) await both(follow(skipping, signal).then(() => present(skipping)), follow(allTokens, signal));
  else {
    await follow(skipping, signal);
    present(skipping);
    await follow(allTokens, signal);
  }
  at("verdict").replaceChildren(...verdictOf(skipping, allTokens, atOnce ? AT_ONCE : IN_TURN));
  at("verdict").hidden = false;
  return "The race is over.";
}

/** Let both come to their end, then raise what went wrong with the first that failed. */
async function both(...works) {
  const failed = (await Promise.allSettled(works)).find((result) => result.status === "rejected");
  if (failed) throw failed.reason;
}

function addLane(title, setting) {
  const lane = new Lane(title, setting);
  at("lanes").append(lane.article);
  at("lanes").scrollIntoView({ block: "nearest" });
  return lane;
}

function follow(lane, signal) {
  const question = at("question").value.trim();
  const request = { model: model().id, question, pictureUrl: picture.url, skip: lane.setting };
  return lane.follow(answer(request, { key, signal }));
}

function present({ usage, skipvision }) {
  if (skipvision?.token_maps?.length) drawTokens(skipvision.token_maps[0]);
  if (!usage?.skipvision) return;
  at("bill-parts").replaceChildren(...billOf(usage.skipvision, skipvision?.seconds));
  at("bill").hidden = false;
}

function stop() {
  if (!running) return;
  running.abort();
  at("status").textContent = "Stopped.";
  finish();
}

function finish() {
  running = null;
  if (document.activeElement === at("stop")) at("question").focus();
  at("stop").hidden = true;
}

function clear() {
  at("lanes").replaceChildren();
  at("verdict").hidden = at("bill").hidden = true;
  say("wrong", "");
  at("status").textContent = "";
}

function isReady() {
  if (!picture) return wants("try-sample", "First a picture: drop one, choose a file, or try the one drawn here.");
  if (!at("question").value.trim()) return wants("question", "First a question.");
  return true;
}

function wants(id, words) {
  say("wrong", words);
  at(id).focus();
  return false;
}

/** Say what went wrong where no lane has, and ask for a key where one is missing. */
function explain(error, again) {
  at("status").textContent = "";
  if (error.name === "AbortError") return;
  if (!at("lanes").childElementCount) say("wrong", error.message);
  if (error.status !== 401) {
    if (error.status === undefined) throw error; // a mistake of ours, for the console
    return;
  }
  afterKey = again;
  at("key-form").hidden = false;
  at("key").focus();
  at("key").select();
}

function say(id, words) {
  at(id).textContent = words;
  at(id).hidden = !words;
}

// Models

async function loadModels() {
  models = await listModels(key);
  at("model").replaceChildren(...models.map(({ id }) => new Option(id, id)));
  at("model-field").hidden = models.length === 1;
  chooseModel();
}

function chooseModel() {
  const { id, skipvision } = model();
  const tokens = skipvision?.visual_tokens;
  at("model-name").textContent = ` · ${id}${tokens ? ` · ${tokens} visual tokens an image` : ""}`;
  const own = skipvision?.skip ?? "off";
  const words = { [own]: `${own}: the model’s own`, auto: "auto: the service chooses", off: "off: all tokens" };
  at("skip").replaceChildren(...Object.keys(words).map((setting) => new Option(words[setting], setting)));
}

function model() {
  return models[at("model").selectedIndex];
}

/** What the model skips by itself, or what the service finds. */
function ownSetting() {
  return [...at("skip").options].find(({ value }) => value !== "off").value;
}

// What the visitor does

function onKey(event) {
  if (event.key === "Escape") stop();
  if (event.key !== "Enter" || event.isComposing) return;
  const isMeant = event.ctrlKey || event.metaKey || (event.target === at("question") && !event.shiftKey);
  if (!isMeant) return;
  event.preventDefault();
  start(ask);
}

function onFiles(event, files) {
  const file = [...(files ?? [])].find(({ type }) => !type || type.startsWith("image/")) ?? files?.[0];
  if (!file) return;
  event.preventDefault();
  choose(file);
}

function onSubmit(id, action) {
  at(id).addEventListener("submit", (event) => {
    event.preventDefault();
    action();
  });
}

function useKey() {
  key = at("key").value.trim();
  at("key-form").hidden = true;
  say("wrong", "");
  at("question").focus();
  afterKey();
}

function highlight(event) {
  event.preventDefault(); // or the browser would leave the page for the dropped file
  at("well").classList.toggle("over", event.type === "dragover");
}

function listen() {
  onSubmit("ask-form", () => start(ask));
  onSubmit("key-form", useKey);
  at("race").addEventListener("click", () => start(race));
  at("stop").addEventListener("click", stop);
  at("model").addEventListener("change", chooseModel);
  at("show-tokens").addEventListener("change", () => drawTokens(map));
  for (const id of ["try-sample", "sample-again"]) at(id).addEventListener("click", chooseSample);
  for (const button of document.querySelectorAll(".suggestion")) {
    button.addEventListener("click", () => {
      at("question").value = button.textContent;
      at("question").focus();
    });
  }
  at("file").addEventListener("change", (event) => {
    onFiles(event, at("file").files);
    at("file").value = ""; // so that the same file may be chosen again
  });
  document.addEventListener("keydown", onKey);
  document.addEventListener("paste", (event) => {
    if (!event.clipboardData.types.includes("text/plain")) onFiles(event, event.clipboardData.files);
  });
  for (const kind of ["dragover", "dragleave", "drop"]) document.addEventListener(kind, highlight);
  document.addEventListener("drop", (event) => onFiles(event, event.dataTransfer?.files));
}

function welcome() {
  return loadModels().catch((error) => explain(error, welcome));
}

drawSample(at("sample"));
listen();
welcome();
