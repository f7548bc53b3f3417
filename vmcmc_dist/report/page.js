/* The rest of a page: slider of grids, tabs, tables (search, sorting), enlarged pictures, copying. */

function slider() {
  const time = document.getElementById("time");
  if (!time) return;
  const stops = time.dataset.stops.split(",").map(Number);
  const text = document.getElementById("time-text"), play = document.getElementById("play");
  const grids = [...document.querySelectorAll("figure.grid")];
  let timer = null;

  function show() {
    const images = stops[Number(time.value)];
    const words = `${images.toLocaleString("en-US")} images`;
    text.textContent = `${words} · ${Number(time.value) + 1} of ${stops.length}`;
    time.setAttribute("aria-valuetext", `${words} seen`);
    for (const grid of grids) {
      const frames = [...grid.querySelectorAll(".frame")];
      if (!frames.length) continue;
      const past = frames.filter((frame) => Number(frame.dataset.images) <= images);
      const shown = past.at(-1) ?? frames[0];
      for (const frame of frames) frame.hidden = frame !== shown;
      const seen = Number(shown.dataset.images).toLocaleString("en-US");
      grid.querySelector(".when").textContent =
        `${seen} images seen · ${Number(shown.dataset.minutes).toFixed(1)} min of training · grid ${frames.indexOf(shown) + 1} of ${frames.length}`;
    }
  }

  function stop() {
    clearInterval(timer);
    timer = null;
    play.textContent = "Play";
    play.setAttribute("aria-pressed", "false");
  }

  play.addEventListener("click", () => {
    if (timer !== null) return stop();
    if (Number(time.value) === stops.length - 1) time.value = 0;
    show();
    play.textContent = "Pause";
    play.setAttribute("aria-pressed", "true");
    timer = setInterval(() => {
      if (Number(time.value) === stops.length - 1) return stop();
      time.value = Number(time.value) + 1;
      show();
    }, 700);
  });
  time.addEventListener("input", () => { stop(); show(); });
  show();
}

function tabs() {
  const all = [...document.querySelectorAll("[role=tab]")];
  function choose(tab) {
    for (const one of all) {
      one.setAttribute("aria-selected", one === tab);
      one.tabIndex = one === tab ? 0 : -1;
      document.getElementById(one.getAttribute("aria-controls")).hidden = one !== tab;
    }
  }
  all.forEach((tab, index) => {
    tab.addEventListener("click", () => choose(tab));
    tab.addEventListener("keydown", (event) => {
      const to = { ArrowRight: index + 1, ArrowLeft: index - 1, Home: 0, End: all.length - 1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      const next = all[(to + all.length) % all.length];
      choose(next);
      next.focus();
    });
  });
}

function search() {
  for (const field of document.querySelectorAll("[data-filter]")) {
    const rows = [...document.getElementById(field.dataset.filter).tBodies[0].rows];
    field.addEventListener("input", () => {
      const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
      for (const row of rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
      }
    });
  }
}

/* The heads of a table sort its rows by the cells' data-key, or text; what has none comes last. */
function sorting() {
  for (const table of document.querySelectorAll("table[data-sortable]")) {
    const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      Object.assign(button, { type: "button", className: "sort" });
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        for (const one of heads) one.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const keyed = [...body.rows].map((row) => {
          const { key } = row.cells[column].dataset, text = row.cells[column].textContent.trim();
          return { row, key: key === undefined ? text : key === "" ? null : Number(key) };
        });
        const order = (a, b) => (typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true }));
        keyed.sort((a, b) => {
          if (a.key === null || b.key === null) return (a.key === null) - (b.key === null);
          return up ? order(a.key, b.key) : order(b.key, a.key);
        });
        body.append(...keyed.map(({ row }) => row));
      });
    });
  }
}

/* Tasks with many figures show the first ones, the rest on demand. */
function folding() {
  const first = 15;
  for (const body of document.querySelectorAll("tbody.task")) {
    const rest = [...body.querySelectorAll("tr.figure")].slice(first);
    if (rest.length < 4) continue;
    const row = document.createElement("tr"), button = document.createElement("button");
    const cell = row.appendChild(document.createElement("th"));
    const show = (open) => {
      for (const one of rest) one.hidden = !open;
      button.setAttribute("aria-expanded", open);
      button.textContent = open ? "show less" : `${rest.length} more figures`;
    };
    cell.colSpan = body.rows[0].cells.length;
    button.type = "button";
    button.className = "more";
    button.addEventListener("click", () => show(rest[0].hidden));
    cell.append(button);
    rest.at(-1).after(row);
    show(false);
  }
}

function viewer() {
  const dialog = document.getElementById("viewer");
  const [image, caption] = [dialog.querySelector("img"), dialog.querySelector("p")];
  for (const button of document.querySelectorAll(".larger"))
    button.addEventListener("click", () => {
      const shown = button.querySelector(".frame:not([hidden]) img") ?? button.querySelector("img");
      image.src = shown.src;
      image.alt = caption.textContent = shown.alt;
      dialog.showModal();
    });
  dialog.querySelector(".close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
}

function copying() {
  for (const button of document.querySelectorAll(".copy"))
    button.addEventListener("click", async () => {
      const text = button.parentElement.querySelector("pre");
      getSelection().selectAllChildren(text);
      try {
        await navigator.clipboard.writeText(text.textContent);
        button.textContent = "Copied";
      } catch {
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
}

[slider, tabs, search, sorting, folding, viewer, copying].forEach((part) => part());
