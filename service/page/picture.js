// Pictures on their way to the service: read from files, made smaller where they are large, or drawn here.

const LARGEST_SIDE = 1536;
const JPEG_QUALITY = 0.9;
const SENT_AS_THEY_ARE = ["image/jpeg", "image/png", "image/webp", "image/gif"];

/** A file that is no picture to this browser. */
export class PictureError extends Error {}

/**
 * Read a file into `{ url, width, height, note }`: a data URL to send, its size in pixels, and a line to show.
 *
 * A picture with a side over 1536 pixels is made smaller, and one of an unusual format made a JPEG.
 */
export async function readPicture(file) {
  const bitmap = await createImageBitmap(file).catch(() => {
    throw new PictureError("This browser cannot read that file as a picture. Try a JPEG, PNG or WebP file.");
  });
  try {
    const scale = Math.min(1, LARGEST_SIDE / Math.max(bitmap.width, bitmap.height));
    const picture = { width: Math.round(bitmap.width * scale), height: Math.round(bitmap.height * scale) };
    if (scale === 1 && SENT_AS_THEY_ARE.includes(file.type)) {
      return { ...picture, url: await dataUrl(file), note: size(bitmap) };
    }
    const doing = scale < 1 ? "made smaller here, to" : "sent as";
    const note = `${size(bitmap)}, ${doing} a JPEG of ${size(picture)}`;
    return { ...picture, url: await dataUrl(await jpeg(bitmap, picture)), note };
  } finally {
    bitmap.close();
  }
}

/** The picture on a canvas of this page, as `readPicture` gives it. */
export function pictureOf(canvas, note) {
  return { url: canvas.toDataURL("image/png"), width: canvas.width, height: canvas.height, note };
}

/** Draw the sample: flat shapes and a word, such as the models that ship were trained on. */
export function drawSample(canvas) {
  const context = canvas.getContext("2d");
  context.scale(canvas.width, canvas.height);
  context.fillStyle = "rgb(250 218 226)";
  context.fillRect(0, 0, 1, 1);
  fill(context, "rgb(31 84 214)", (path) => path.arc(0.19, 0.2, 0.13, 0, 2 * Math.PI));
  fill(context, "rgb(240 200 20)", (path) => star(path, 0.8, 0.47, 0.14));
  fill(context, "rgb(34 139 60)", (path) => polygon(path, [[0.33, 0.68], [0.47, 0.91], [0.19, 0.91]]));
  context.fillStyle = "black";
  context.textAlign = "center";
  context.textBaseline = "middle";
  // Below a size of one, browsers round the font; so the letters are drawn in hundredths.
  context.scale(0.01, 0.01);
  context.font = "16.5px Helvetica, Arial, sans-serif";
  context.fillText("ART", 79, 82);
}

function fill(context, colour, draw) {
  const path = new Path2D();
  draw(path);
  context.fillStyle = colour;
  context.fill(path);
}

function star(path, x, y, radius) {
  const corners = Array.from({ length: 10 }, (_, turn) => {
    const reach = turn % 2 ? radius * 0.42 : radius;
    return [x + reach * Math.sin((Math.PI * turn) / 5), y - reach * Math.cos((Math.PI * turn) / 5)];
  });
  polygon(path, corners);
}

function polygon(path, corners) {
  for (const [x, y] of corners) path.lineTo(x, y);
  path.closePath();
}

function size({ width, height }) {
  return `${width} × ${height} pixels`;
}

function jpeg(bitmap, { width, height }) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.fillStyle = "white"; // a JPEG has no transparency, and would show black there
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0, width, height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", JPEG_QUALITY));
}

function dataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new PictureError("That file could not be read. Try it again."));
    reader.readAsDataURL(blob);
  });
}
