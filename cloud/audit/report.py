"""The audit's report: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from ruyicam.cloud.files import write_whole

from .inversion import Gallery
from .run import Findings, verdict
from .stats import Result

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}
table{border-collapse:collapse;width:100%;font-size:14px;margin:1rem 0}
td,th{padding:.3rem .5rem;border-bottom:1px solid #ddd;text-align:left}
td.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}.bad{color:#b00020;font-weight:600}.good{color:#146c2e}
img{max-width:100%}code{background:#f2f2f2;padding:.1rem .3rem}
@media(prefers-color-scheme:dark){body{background:#161616;color:#e6e6e6}
td,th{border-color:#444}code{background:#2a2a2a}.good{color:#6fcf97}.bad{color:#ff6b6b}img{background:#fff}}
"""

_RISKS = """
<h2>What remains</h2>
<ul>
<li><b>Presence.</b> That someone is there, and when, is what the system is for. It is not hidden from the server.</li>
<li><b>Behaviour.</b> What is recognised is told. Someone whose behaviour is known to be unusual can be known by it.</li>
<li><b>Small groups.</b> Where only a few people come by, knowing who was on duty names them without any picture. A cap among
1,000 people says nothing about three.</li>
<li><b>Long stays.</b> Budgets are per visit. Someone who stays for an hour is before the camera for many visits, and
<code>ruyicam privacy --minutes 60</code> prints what is left of the cap.</li>
<li><b>The default profile.</b> Under <code>reasoning</code> the proven cap is vacuous: whoever holds a candidate picture can
tell whether it was the one (see "which frame"), and an encoder that was made to betray who it is would succeed. What stands
against that is a signed bundle from a vendor who is trusted, and the measurements above of this bundle.</li>
<li><b>Attacks that nobody has thought of.</b> A measured figure is a lower limit of what can be done; only a
bound is an upper one.</li>
<li><b>A clock that runs ahead</b> before the device starts opens a new day of its budget early.</li>
</ul>
<h2>Where to put it</h2>
<ul>
<li>Choose <code>strict</code> or <code>standard</code> wherever a look is enough: they tell that someone should look,
not why.</li>
<li>High and wide, not towards faces: figures that fill the frame are read better than small ones (see "faces").</li>
<li>One camera per place; each further one that sees the same person adds to what is told of them (<code>--cameras</code>).</li>
<li>Not where fewer people come by than the cap is meant for.</li>
<li>Put the ledger's witness on another medium than the state folder.</li>
</ul>
<h2>What an integrator must check</h2>
<p>Released features may be personal data wherever they can be joined with what else is known about a place. That decides
what applies, and it is for the operator to find out, with counsel: under the GDPR the legal basis (article 6, and 9 where
health can be read from behaviour), the duty to inform (13), data protection by design (25), a data protection impact assessment
(35) for systematic monitoring, and works councils; under the EU AI Act whether the purpose is high-risk or prohibited
(recognising emotions at work or school, biometric categorisation); elsewhere PIPL, CCPA, BIPA and national rules on video
surveillance.
This report is evidence for such an assessment, not a replacement of it.</p>
"""


def _embed(figure: plt.Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    plt.close(figure)
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'


def _curve(curve: dict[str, list[dict]]) -> str:
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    for colour, (profile, points) in zip(("C0", "C1", "C3"), curve.items(), strict=False):
        x = [p["releases"] for p in points]
        y = np.array([p["value"] for p in points])
        low, high = np.array([p["ci"] for p in points]).T
        axes.errorbar(x, y, [y - low, high - y], color=colour, marker="o", capsize=3, label=f"{profile}: measured")
        axes.plot(x, [p["bound"] for p in points], color=colour, linestyle="--", label=f"{profile}: proven cap")
    axes.plot(x, [p["chance"] for p in points], color="grey", linestyle=":", label="chance")
    axes.set(xscale="log", yscale="log", xlabel="releases of the same frame, averaged", ylabel="right frame named")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3, which="both")
    return _embed(figure)


def _gallery(g: Gallery) -> str:
    count = len(g.originals)
    figure, axes = plt.subplots(2, count + 1, figsize=(1.3 * (count + 1), 2.4), layout="constrained")
    for row, (name, pictures) in enumerate((("original", g.originals), ("made from features", g.drawn))):
        for i in range(count + 1):
            axes[row, i].imshow(pictures[i] if i < count else g.mean, cmap="gray", vmin=0, vmax=255)
            axes[row, i].axis("off")
        axes[row, 0].set_title(name, fontsize=8, loc="left")
    axes[0, count].set_title("prior mean", fontsize=8)
    return f"<h3>{html.escape(g.name)}</h3>{_embed(figure)}"


def _rows(results: list[Result]) -> str:
    rows = []
    for r in results:
        target = "" if r.target is None else f'<span class="{"good" if r.meets_target else "bad"}">{r.target:.4g}</span>'
        holds = '<span class="good">holds</span>' if r.holds else '<span class="bad">above</span>'
        rows.append(
            f"<tr><td>{html.escape(r.name)}<br><small>{html.escape(r.note)}</small></td><td>{r.profile}</td>"
            f'<td>{html.escape(r.metric)}</td><td class="n">{r.value:.4g}</td>'
            f'<td class="n">{r.ci[0]:.4g} to {r.ci[1]:.4g}</td><td class="n">{r.chance:.4g}</td>'
            f'<td class="n">{r.limit}</td><td class="n">{target}</td><td>{holds if r.bound is not None else ""}</td></tr>'
        )
    head = "".join(
        f"<th>{c}</th>" for c in ("attack", "profile", "metric", "measured", "95 %", "chance", "bound", "target", "")
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def write_report(found: Findings, path: Path, title: str, command: str, generated_only: bool) -> None:
    """Writes the report. generated_only: pictures of generated scenes alone, for a report that is passed on.

    OSError if `path` cannot be written.
    """
    wrong = verdict(found)
    galleries = [g for g in found.galleries if not g.real or not generated_only]
    summary = (
        '<p class="good">Every interval is compatible with its bound; controls behave as they must.</p>'
        if not wrong
        else '<ul class="bad">' + "".join(f"<li>{html.escape(w)}</li>" for w in wrong) + "</ul>"
    )
    missed = [r for r in found.attacks if r.meets_target is False]
    if missed:
        summary += f"<p>{len(missed)} figures are above the targets for the default model, in red below.</p>"
    if found.skipped:
        summary += "<p>Left out: " + html.escape("; ".join(found.skipped)) + "</p>"
    body = f"""<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{html.escape(title)}</title><style>{_STYLE}</style><h1>{html.escape(title)}</h1>
<p>Attackers know the model, the mapping and everything else but the random bits, and are trained from scratch against the
frozen system. Measured figures are what they achieved; bounds are proven for any attacker (docs/privacy.md). Made by
<code>{html.escape(command)}</code>.</p>{summary}
<h2>Measured against bound</h2>{_rows(found.attacks)}
<h2>Controls</h2><p>Positive: with the protection taken away the same attackers must succeed.</p>{_rows(found.positive)}
<p>Negative: with shuffled labels they must not.</p>{_rows(found.negative)}
<h2>Averaging</h2>{_curve(found.curve) if found.curve else ""}
<h2>Pictures</h2><p>The best reconstructions beside the originals, at the size that the decoder draws.</p>
{"".join(_gallery(g) for g in galleries)}{_RISKS}</html>"""
    write_whole(path, body)
