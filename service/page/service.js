// What the page asks of the service, and how it understands the answers. Nothing here touches the page.

const MAX_TOKENS = 128;

/** Something the service refused or broke off, in words for the visitor. */
export class ServiceError extends Error {
  constructor(message, { status = 0, code = null } = {}) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** The models on offer, as `GET /v1/models` lists them. */
export async function listModels(key) {
  const response = await send("v1/models", { headers: headers(key) });
  const models = (await response.json()).data;
  if (!models?.length) throw new ServiceError("The service offers no model.");
  return models;
}

/**
 * Yield the chunks of one streamed answer, as the service sends them.
 *
 * Ending the signal closes the connection, and with it the work on the other side.
 */
export async function* answer({ model, question, pictureUrl, skip }, { key, signal }) {
  const content = [
    { type: "image_url", image_url: { url: pictureUrl } },
    { type: "text", text: question },
  ];
  const body = JSON.stringify({
    model,
    messages: [{ role: "user", content }],
    max_tokens: MAX_TOKENS,
    stream: true,
    stream_options: { include_usage: true },
    skipvision: { skip, token_map: true },
  });
  const response = await send("v1/chat/completions", { method: "POST", headers: headers(key), body, signal });
  for await (const event of events(response.body)) {
    if (event === "[DONE]") return;
    const chunk = JSON.parse(event);
    if (chunk.error) throw errorOf(chunk, response.status);
    yield chunk;
  }
  throw new ServiceError("The answer broke off before its end. Ask again.");
}

function headers(key) {
  return { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }) };
}

async function send(path, options) {
  let response;
  try {
    response = await fetch(path, { credentials: "omit", cache: "no-store", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError("The service cannot be reached. Try again in a moment.");
  }
  if (response.ok) return response;
  throw errorOf(await response.json().catch(() => ({})), response.status);
}

function errorOf({ error }, status) {
  const message = error?.message ?? `The service answered with status ${status} and no reason.`;
  return new ServiceError(message, { status, code: error?.code ?? error?.type });
}

/** Yield the data of each server-sent event; the service writes each on one line. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let unfinished = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (unfinished + value).split(/\r?\n/);
      unfinished = lines.pop();
      for (const line of lines) if (line.startsWith("data:")) yield line.slice(5).trim();
    }
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError("The connection to the service was lost. Ask again.");
  } finally {
    reader.cancel().catch(() => {}); // of a stream that failed, whose failure is already known
  }
}
