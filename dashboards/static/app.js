"use strict";
(() => {
  const root = document.documentElement;
  const themes = ["auto", "light", "dark"];
  const css = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const views = new Map();

  // A specification names colours as var(--name); data stay as they are.
  const coloured = (part) => {
    if (typeof part === "string") return part.replace(/^var\((--[\w-]+)\)$/, (_, name) => css(name));
    if (Array.isArray(part)) return part.map(coloured);
    if (part && typeof part === "object")
      return Object.fromEntries(Object.entries(part).map(([key, value]) => [key, key === "data" ? value : coloured(value)]));
    return part;
  };

  const look = () => {
    const ink = css("--ink"), soft = css("--ink-2"), line = css("--line"), font = css("--font");
    const text = { labelFont: font, titleFont: font, labelFontSize: 11, titleFontSize: 11, titleFontWeight: 500 };
    return {
      background: null, font, view: { stroke: null },
      axis: { ...text, labelColor: soft, titleColor: soft, gridColor: line, domainColor: line, tickColor: line, titlePadding: 10 },
      axisY: { labelColor: ink, domain: false, ticks: false, labelPadding: 9 }, text: { font },
    };
  };

  const draw = async (box) => {
    try {
      const spec = coloured(JSON.parse(document.getElementById(box.dataset.spec).textContent));
      views.get(box)?.finalize();
      const made = await vegaEmbed(box, spec, {
        ast: true, actions: false, defaultStyle: false, renderer: "svg", hover: true, logLevel: 1, config: look(),
        tooltip: { disableDefaultStyle: true, theme: "own" }, loader: { http: { credentials: "same-origin" } },
      });
      views.set(box, made);
      made.view.addEventListener("click", (_, item) => {
        const href = item?.datum?.href;
        if (href && new URL(href, location).origin === location.origin) location.assign(href);
      });
    } catch (error) {
      box.textContent = "This chart could not be drawn. Its numbers are in the table below.";
      box.classList.add("broken");
      console.warn(error);
    }
  };

  const drawAll = async () => {
    delete root.dataset.ready;
    for (const box of document.querySelectorAll(".chart[data-spec]")) await draw(box);
    root.dataset.ready = "1";
  };

  const button = document.querySelector("[data-theme-switch]");
  if (button) {
    button.hidden = false;
    button.addEventListener("click", () => {
      const next = themes[(themes.indexOf(root.dataset.theme) + 1) % themes.length];
      root.dataset.theme = button.querySelector("span").textContent = next;
      document.cookie = `plumbline_theme=${next}; path=/; max-age=31536000; samesite=lax`;
      drawAll();
    });
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);

  document.addEventListener("click", async (event) => {
    const copy = event.target.closest("[data-copy]");
    if (copy) {
      await navigator.clipboard.writeText(copy.closest(".command").querySelector("code").textContent);
      copy.textContent = "Copied";
    }
    const save = event.target.closest("[data-save]");
    if (save) {
      const made = views.get(document.getElementById(save.dataset.chart));
      if (!made) return;
      const link = document.createElement("a");
      link.href = await made.view.toImageURL(save.dataset.save, 2);
      link.download = `${save.dataset.chart}.${save.dataset.save}`;
      link.click();
    }
  });
  document.addEventListener("change", (event) => {
    if (event.target.matches("[data-auto]")) event.target.form.requestSubmit();
  });
  drawAll();
})();
