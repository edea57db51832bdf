(() => {
  "use strict";
  const words = new Intl.Collator("en", { numeric: true });
  const key = (row, place) => {
    const cell = row.cells[place], text = cell.textContent.trim();
    if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
    return text === "" || text.startsWith("\u2014") ? null : text;
  };
  const compare = (a, b) => typeof a === "number" && typeof b === "number" ? a - b : words.compare(String(a), String(b));
  const sort = (table, place, sign) => {
    for (const body of table.tBodies) {
      const rows = Array.from(body.rows).filter((row) => !row.classList.contains("group"));
      const keyed = rows.map((row) => ({ row, at: Number(row.dataset.at), key: key(row, place) }));
      keyed.sort((a, b) => {
        if (sign === 0) return a.at - b.at;
        if (a.key === null || b.key === null) return (a.key === null) - (b.key === null) || a.at - b.at;
        return sign * compare(a.key, b.key) || a.at - b.at;
      });
      body.append(...keyed.map((each) => each.row));
    }
  };
  const next = { none: ["ascending", 1], ascending: ["descending", -1], descending: ["none", 0] };
  for (const table of document.querySelectorAll(".table table")) {
    const heads = Array.from(table.tHead.rows[table.tHead.rows.length - 1].cells);
    Array.from(table.querySelectorAll("tbody tr")).forEach((row, at) => { row.dataset.at = at; });
    heads.forEach((head, place) => {
      const button = document.createElement("button");
      button.type = "button";
      button.title = "sort: up, down, as it was";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const [state, sign] = next[head.getAttribute("aria-sort") || "none"];
        heads.forEach((each) => each.removeAttribute("aria-sort"));
        if (sign !== 0) head.setAttribute("aria-sort", state);
        sort(table, place, sign);
      });
    });
  }
  const reveal = () => {
    const found = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (let each = found; each; each = each.parentElement) if (each.tagName === "DETAILS") each.open = true;
    if (found) found.scrollIntoView();
  };
  addEventListener("hashchange", reveal);
  reveal();
  for (const shown of document.querySelectorAll("details.latex")) {
    const button = document.createElement("button"), text = shown.querySelector("pre");
    button.type = "button";
    button.textContent = "Copy LaTeX";
    button.addEventListener("click", (event) => {
      event.preventDefault();
      const select = () => { shown.open = true; getSelection().selectAllChildren(text); };
      navigator.clipboard ? navigator.clipboard.writeText(text.textContent).then(() => { button.textContent = "Copied"; }, select) : select();
    });
    shown.after(button);
  }
})();
