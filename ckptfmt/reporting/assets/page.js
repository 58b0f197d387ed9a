// Which page it is, and its colours.

(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  document.getElementById("theme").addEventListener("change", (event) => {
    document.documentElement.style.colorScheme = event.target.value || "light dark";
  });
  ({ checkpoint: checkpointPage, comparison: comparisonPage, run: runPage })[data.kind](data);
})();
