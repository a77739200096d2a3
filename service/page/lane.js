// One answer as it arrives: its words, its seconds, and what was read for it.

import { numberText, secondsText } from "./units.js";

const TICK_MILLISECONDS = 100;

export class Lane {
  usage = null;
  skipvision = null;
  seconds = null;

  /** @param title what the lane is called; @param setting the skip setting that it runs with */
  constructor(title, setting) {
    this.setting = setting;
    this.article = document.getElementById("lane").content.cloneNode(true).firstElementChild;
    this.#find("h3").textContent = title;
    this.#find(".tag").textContent = setting;
    this.said = this.#find(".said");
  }

  get text() {
    return this.said.textContent;
  }

  /** Take the chunks of an answer until the last; raises what stopped it, having said so in the lane. */
  async follow(chunks) {
    const started = performance.now();
    const elapsed = () => (performance.now() - started) / 1000;
    const clock = setInterval(() => this.#show("seconds", secondsText(elapsed())), TICK_MILLISECONDS);
    this.#run(true);
    try {
      for await (const chunk of chunks) this.#take(chunk, elapsed());
      this.seconds ??= elapsed();
    } catch (error) {
      this.#fail(error);
      throw error;
    } finally {
      clearInterval(clock);
      this.#show("seconds", secondsText(this.seconds ?? elapsed()));
      this.#run(false);
    }
  }

  #take(chunk, elapsed) {
    const piece = chunk.choices?.[0]?.delta?.content;
    if (piece) {
      if (!this.text) this.#show("first", secondsText(elapsed));
      this.said.append(piece); // as text, whatever is in it
    }
    if (chunk.choices?.[0]?.finish_reason) this.seconds = elapsed; // the map of tokens, which follows, is no part of it
    this.skipvision = chunk.skipvision ?? this.skipvision;
    if (chunk.usage) this.#count(chunk.usage);
  }

  #count(usage) {
    this.usage = usage;
    const tokens = usage.skipvision;
    if (!tokens) return;
    const read = tokens.retained_tokens + tokens.skipped_tokens + tokens.summary_tokens;
    this.#show("read", `${numberText(read)} of ${numberText(tokens.visual_tokens)}`);
  }

  #fail(error) {
    if (error.name === "AbortError") return this.article.classList.add("stopped");
    const wrong = this.#find(".wrong");
    wrong.textContent = error.message;
    wrong.hidden = false;
  }

  /** Readers of screens are told of the words when the answer is whole. */
  #run(running) {
    this.article.classList.toggle("running", running);
    this.said.setAttribute("aria-busy", running);
  }

  #show(figure, text) {
    this.#find(`.${figure}`).textContent = text;
  }

  #find(selector) {
    return this.article.querySelector(selector);
  }
}
