// Light or dark on a click; without a click the page follows the system. Nothing is stored where storage is refused.
(() => {
  const root = document.documentElement, button = document.getElementById("theme");
  const remembered = () => { try { return localStorage.getItem("regauge-theme"); } catch { return null; } };
  const remember = theme => { try { localStorage.setItem("regauge-theme", theme); } catch { /* a file: page may not */ } };
  const isDark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const label = () => { button.textContent = isDark() ? "Light" : "Dark"; };
  if (["light", "dark"].includes(remembered())) root.dataset.theme = remembered();
  button.hidden = false;
  label();
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    remember(root.dataset.theme);
    label();
  });
  // On paper nothing can be opened.
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach(d => { d.open = true; }));
})();
