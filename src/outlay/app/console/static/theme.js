// Colours before the first paint: as the system says, unless a person chose.
(function () {
  "use strict";
  let chosen = null;
  try { chosen = localStorage.getItem("outlay-theme"); } catch (error) { /* a browser without storage: as the system */ }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();
