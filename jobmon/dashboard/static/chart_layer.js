// Elements over the plot of a chart. They are not in the plot, because for screen readers the plot is one image.

/** Move `layer` over the plot; both are in `figure`. */
export function coverPlot(layer, plot, figure) {
  const plotBox = plot.over.getBoundingClientRect();
  const box = figure.getBoundingClientRect();
  layer.style.left = `${plotBox.left - box.left - figure.clientLeft}px`;
  layer.style.top = `${plotBox.top - box.top - figure.clientTop}px`;
  layer.style.width = `${plotBox.width}px`;
  layer.style.height = `${plotBox.height}px`;
}
