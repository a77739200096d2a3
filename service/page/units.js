// Amounts as people read them.

const FLOPS = ["FLOPs", "kFLOPs", "MFLOPs", "GFLOPs", "TFLOPs", "PFLOPs", "EFLOPs"];
const BYTES = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

export function numberText(value) {
  return value.toLocaleString("en", { maximumSignificantDigits: value < 1000 ? 3 : 21 });
}

export function flopsText(flops) {
  return scaled(flops, 1000, FLOPS);
}

export function bytesText(bytes) {
  return scaled(bytes, 1024, BYTES);
}

export function secondsText(seconds) {
  return `${seconds.toFixed(seconds < 10 ? 2 : 1)} s`;
}

/** `part` of `whole` as a percentage; a dash when there is no whole. */
export function shareText(part, whole) {
  return whole ? `${Math.round((100 * part) / whole)}%` : "–";
}

function scaled(value, base, units) {
  let place = 0;
  for (; value >= base && place < units.length - 1; place++) value /= base;
  return `${numberText(value)} ${units[place]}`;
}
