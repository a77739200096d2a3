// What an answer cost beside the same answer with all tokens, and which of two answers won.

import { FATES, partBar } from "./drawing.js";
import { bytesText, flopsText, numberText, secondsText, shareText } from "./units.js";

const STAGES = ["queue", "encode", "prefill", "decode"];
const MEANINGS = {
  retained: "clear: retained, runs every block in full",
  skipped: "veiled: skipped, attends but passes by the feed-forward blocks",
  merged: "tinted: averaged with tokens that look alike into one skipped token",
  dropped: "dark: dropped, never enters the language model",
};

/** The parts of the bill for the usage of one answer: tokens, arithmetic, memory, and seconds where known. */
export function billOf(usage, seconds) {
  const parts = [
    tokensPart(usage),
    versusPart("Arithmetic", flopsText, usage.flops, usage.flops_all_tokens),
    versusPart("Memory for keys and values", bytesText, usage.kv_bytes, usage.kv_bytes_all_tokens),
  ];
  return seconds ? [...parts, secondsPart(seconds)] : parts;
}

/** The line and bars that compare a race's two lanes. Both have come to their end. */
export function verdictOf(skipping, allTokens, note) {
  const ratio = allTokens.seconds / skipping.seconds;
  const times = numberText(Number(Math.max(ratio, 1 / ratio).toFixed(1)));
  const line = ratio < 1 ? `Skipping took ${times} times as long.` : `Skipping was ${times} times as fast.`;
  const same = skipping.text.trim() === allTokens.text.trim();
  const most = Math.max(skipping.seconds, allTokens.seconds);
  return [
    made("p", "line", [
      times === "1" ? "Both took equally long." : line,
      made("span", same ? "badge same" : "badge other", [same ? "same answer" : "another answer"]),
    ]),
    versus([
      ["skipping", "job", skipping.seconds, secondsText(skipping.seconds)],
      ["all tokens", "all", allTokens.seconds, secondsText(allTokens.seconds)],
    ], most),
    made("p", "small soft", [note]),
  ];
}

/** What the veils over a picture mean, for the fates that are on its map. */
export function keysOf(map) {
  const found = Object.entries(FATES).filter(([letter]) => map.fates.includes(letter));
  return found.map(([, fate]) => made("li", "", [made("i", `swatch key-${fate}`), MEANINGS[fate]]));
}

function tokensPart(usage) {
  const fates = ["retained", "skipped", "merged", "dropped"];
  const parts = fates.map((name) => ({ name, amount: usage[`${name}_tokens`] })).filter((part) => part.amount);
  const saved = `${numberText(usage.tokens_saved)} of ${numberText(usage.visual_tokens)} not read`;
  const words = parts.map(({ name, amount }) => [name, numberText(amount)]);
  if (usage.summary_tokens) words.push(["summary", `+${usage.summary_tokens}`]);
  return part("Visual tokens", saved, [partBar(parts, legendText(words)), legend(words)]);
}

function versusPart(title, text, actual, allTokens) {
  const rows = [
    ["this answer", "job", actual, text(actual)],
    ["all tokens", "all", allTokens, text(allTokens)],
  ];
  return part(title, `${shareText(actual, allTokens)} of all tokens`, [versus(rows, Math.max(actual, allTokens))]);
}

function secondsPart(seconds) {
  const stages = STAGES.filter((stage) => seconds[stage] != null);
  const bar = partBar(stages.map((name) => ({ name, amount: seconds[name] })), "where the time went");
  const words = stages.map((stage) => [stage, secondsText(seconds[stage])]);
  return part("Seconds", `${secondsText(seconds.total)} in the service`, [bar, legend(words)]);
}

function part(title, figure, drawn) {
  return made("div", "", [made("h3", "", [title]), made("p", "figure", [figure]), ...drawn]);
}

function versus(rows, most) {
  const lines = rows.flatMap(([title, name, amount, text]) => [
    made("span", "", [title]), partBar([{ name, amount }], `${title}: ${text}`, most), made("span", "num", [text]),
  ]);
  return made("div", "versus", lines);
}

function legend(words) {
  return made("p", "legend", words.map(([name, text]) => (
    made("span", "", [made("i", `swatch part-${name}`), `${name} `, made("b", "", [text])])
  )));
}

function legendText(words) {
  return words.map((pair) => pair.join(" ")).join(", ");
}

function made(name, className, children = []) {
  const element = document.createElement(name);
  element.className = className;
  element.append(...children);
  return element;
}
