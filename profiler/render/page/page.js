// Charts over the time of the session, tables that can be sorted and searched.
const data = JSON.parse(document.getElementById('data').textContent);
const style = getComputedStyle(document.documentElement);
const color = (name) => style.getPropertyValue('--' + name).trim();
const charts = [];

function seconds(s) {
  return s >= 10 ? s.toFixed(1) + ' s' : s >= 1 ? s.toFixed(2) + ' s' : (s * 1000).toFixed(1) + ' ms';
}

function draw() {
  for (const chart of charts.splice(0)) chart.destroy();
  for (const figure of document.querySelectorAll('figure[data-series]')) {
    const series = data.series[+figure.dataset.series];
    const target = figure.querySelector('div'), said = figure.querySelector('.value');
    const tint = color(series.color), axis = { stroke: color('quiet'), grid: { stroke: color('grid'), width: 1 }, ticks: { show: false } };
    const initial = said.dataset.initial ??= said.textContent;
    charts.push(new uPlot({
      width: target.clientWidth, height: 92, legend: { show: false }, padding: [null, 28, null, null],
      cursor: { sync: { key: 'time' }, y: false, points: { size: 6 } },
      scales: { x: { time: false }, y: { range: (u, low, high) => [0, series.top || Math.max(high * 1.05, 1e-9)] } },
      axes: [
        { ...axis, size: 22, values: (u, at) => at.map(seconds) },
        { ...axis, size: 80, space: 24, values: (u, at) => at.map((v) => v.toLocaleString('en') + series.unit) },
      ],
      series: [{}, { stroke: tint, fill: tint + '55', width: 1, spanGaps: true, points: { show: false },
        paths: series.stepped ? uPlot.paths.stepped({ align: 1 }) : undefined }],
      hooks: { setCursor: [(u) => {
        const i = u.cursor.idx, v = i == null ? null : series.values[i];
        said.textContent = v == null ? initial : v.toLocaleString('en', { maximumFractionDigits: 1 }) + series.unit + ' at ' + seconds(data.at[i]);
      }] },
    }, [data.at, series.values], target));
  }
}

draw();
let pending;
addEventListener('resize', () => { clearTimeout(pending); pending = setTimeout(draw, 150); });
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);

for (const table of document.querySelectorAll('table.sortable')) {
  const heads = [...table.querySelectorAll('th')];
  heads.forEach((head, column) => head.addEventListener('click', () => {
    const value = (row) => row.cells[column].dataset.v ?? row.cells[column].textContent;
    const numeric = heads[column].dataset.text === undefined;
    const ascending = head.getAttribute('aria-sort') === (numeric ? 'descending' : 'ascending') ? numeric : !numeric;
    heads.forEach((h) => h.removeAttribute('aria-sort'));
    head.setAttribute('aria-sort', ascending ? 'ascending' : 'descending');
    const rows = [...table.tBodies[0].rows];
    rows.sort((a, b) => (numeric ? value(a) - value(b) : value(a).localeCompare(value(b))) * (ascending ? 1 : -1));
    table.tBodies[0].append(...rows);
  }));
}
const search = document.getElementById('search');
search?.addEventListener('input', () => {
  const what = search.value.toLowerCase();
  for (const row of document.querySelectorAll('table.sortable tbody tr')) row.hidden = !row.textContent.toLowerCase().includes(what);
});
