// The chart of the losses of a job, drawn at most once per frame however many epochs arrive.

import { drawLosses } from "./charts.js";

// An empty chart, hidden until two epochs are known.
export function lossChart() {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("role", "img");
  svg.setAttribute("hidden", "");
  const losses = []; // [epoch, training loss, validation loss]
  let frame = 0;
  const draw = () => {
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(() => {
      svg.toggleAttribute("hidden", losses.length < 2);
      if (losses.length > 1) drawLosses(svg, losses);
    });
  };
  addEventListener("resize", draw);
  return {
    svg,
    add({ epoch, loss, val_loss }) {
      if (![epoch, loss, val_loss].every(Number.isFinite)) return; // the loss may be no number
      if (losses.length && epoch <= losses.at(-1)[0]) losses.length = 0; // another attempt
      losses.push([epoch, loss, val_loss]);
      draw();
    },
    clear() {
      losses.length = 0;
      draw();
    },
    stop() {
      cancelAnimationFrame(frame);
      removeEventListener("resize", draw);
    },
  };
}
