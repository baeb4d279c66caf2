// Runs before the first paint, so that a remembered dark page never flashes white. The rest of the theme is in theme.js.
try {
  const stored = localStorage.getItem("everflame.theme");
  if (stored === "light" || stored === "dark") document.documentElement.setAttribute("data-theme", stored);
} catch {
  // Storage may be forbidden: the system's choice holds.
}
