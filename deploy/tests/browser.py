"""Headless Chromium on the status page: what it logs, how wide pages are, how they look."""

import html
import http.server
import re
import shutil
import subprocess
import tempfile
import threading
import urllib.error
import urllib.request

#: Seconds that a page may take; it needs less than one on an idle machine.
SECONDS = 120
#: Milliseconds of a page's own clock: longer than every request of it.
BUDGET = 4000
#: Looks at every text that is shown and tells the page around the frame: the width of all, texts that are outside, hidden or
#: tiny, texts that do not stand out (WCAG: 4.5 to 1), how many there are, and the colour of the paper.
MEASURE = """
<script>
addEventListener('load', () => setTimeout(() => {
  const found = {given: innerWidth, width: document.documentElement.scrollWidth, clipped: [], pale: [], texts: 0, paper: []};
  const channel = c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = c => 0.2126 * channel(c[0]) + 0.7152 * channel(c[1]) + 0.0722 * channel(c[2]);
  const numbers = c => (c.match(/[\\d.]+/g) || []).map(Number);
  const behind = e => {
    for (; e; e = e.parentElement) {
      const c = numbers(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] > 0.5) return c;
    }
    return [255, 255, 255];
  };
  found.paper = behind(document.body).slice(0, 3);
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const text = walk.currentNode.data.trim(), parent = walk.currentNode.parentElement;
    if (!text || parent.closest('script') || parent.closest('.groups thead, .streams thead')) continue;
    found.texts += 1;
    const range = document.createRange();
    range.selectNodeContents(walk.currentNode);
    const box = range.getBoundingClientRect();
    const style = getComputedStyle(parent);
    const inside = box.width > 0 && box.height > 0 && box.left >= -0.5 && box.right <= innerWidth + 0.5;
    if (!inside || style.visibility !== 'visible' || parseFloat(style.fontSize) < 12) found.clipped.push(text);
    const [a, b] = [light(numbers(style.color)), light(behind(parent))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) found.pale.push(text);
  }
  parent.postMessage(JSON.stringify(found), '*');
}, 200));
</script>
"""


class Mirror:
    """The page on another port, without its policy: put into frames of any width, and measured there."""

    def __init__(self, address):
        mirror, self.address, self.asked = self, address, []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):  # noqa: N802, the name is the library's
                mirror.asked.append(self.path)
                mirror.answer(self)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.frames, self.replaced = {}, {}

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def answer(self, request):
        if request.path in self.frames:
            kind, body, status = "text/html; charset=utf-8", self.frames[request.path].encode(), 200
        else:
            kind, body, status = self.fetch(request.path)
        request.send_response(status)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    def fetch(self, path):
        if path in self.replaced:
            return "text/html; charset=utf-8", self.replaced[path].replace("</body>", MEASURE + "</body>").encode(), 200
        try:
            with urllib.request.urlopen(self.address + path, timeout=30) as answer:
                kind, body, status = answer.headers["Content-Type"], answer.read(), answer.status
        except urllib.error.HTTPError as error:
            return "text/plain", error.read(), error.code
        if kind.startswith("text/html"):
            body = body.replace(b"</body>", MEASURE.encode() + b"</body>")
        return kind, body, status

    def frame(self, name, *frames, scheme="light"):
        """A page with frames side by side, each (path, width, height); returns its address."""
        each = [
            f'<iframe src="{html.escape(path)}" width="{width}" height="{height}" scrolling="no"></iframe>'
            for path, width, height in frames
        ]
        paper = {"light": "#fff", "dark": "#000"}[scheme]
        style = f"html{{color-scheme:{scheme}}}body{{margin:0;display:flex;gap:16px;align-items:flex-start;background:{paper}}}"
        style += "iframe{border:0;flex:none}"
        script = "addEventListener('message', e => { document.querySelector('title').append(e.data + '\\n') })"
        page = f"<!doctype html><title></title><style>{style}</style>{''.join(each)}<script>{script}</script>"
        self.frames[f"/{name}"] = page
        return f"http://127.0.0.1:{self.port}/{name}"


def chromium(address, *flags, scheme="light"):
    """Loads a page in a fresh profile; returns what it writes, and the lines of its console."""
    program = shutil.which("chromium")
    assert program, "install chromium first: make deploy-tools"
    with tempfile.TemporaryDirectory(prefix="mixfeed-chromium-") as profile:
        command = [program, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-extensions"]
        command += ["--disable-background-networking", "--disable-dev-shm-usage", f"--user-data-dir={profile}"]
        command += ["--enable-logging=stderr", "--hide-scrollbars", f"--virtual-time-budget={BUDGET}"]
        command += [f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}"]
        done = subprocess.run(
            [*command, *flags, address], capture_output=True, text=True, timeout=SECONDS, check=True
        )
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def title(document):
    """The title of a dumped page."""
    return html.unescape(re.search(r"<title>(.*?)</title>", document, re.S)[1])


def screenshot(address, file, width, height, scheme="light", scale=1):
    """A picture of a page."""
    flags = [f"--screenshot={file}", f"--window-size={width},{height}", f"--force-device-scale-factor={scale}"]
    chromium(address, *flags, scheme=scheme)
