"""The picture of a sweep whose loads were measured one by one: throughput against the speed of one user."""

import math

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 400, 60, 150, 40, 52
COLORS = ("#3b6fb6", "#d1662b", "#3f9658", "#a8409c", "#8a6d1f", "#2b9aa0", "#c23b4e", "#6b5fc7")


def axis(highest):
    """(end of the axis, step): steps of 1, 2 or 5 times a power of ten, at most eight."""
    highest = max(highest, 1e-9) * 1.02
    power = 10.0 ** math.floor(math.log10(highest / 8))
    step = next(power * factor for factor in (1, 2, 5, 10) if highest / (power * factor) <= 8)
    return math.ceil(highest / step) * step, step


def escaped(text):
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def label(x, y, text, anchor="start", more=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{escaped(text)}</text>'


def axes(title, x_end, x_step, y_end, y_step, place):
    lines = [label(LEFT, TOP - 16, title, more=' font-size="15" font-weight="600"'),
             label((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, "tokens/s of one user", "middle"),
             label(16, (TOP + HEIGHT - BOTTOM) / 2, "tokens/s of all", "middle",
                   f' transform="rotate(-90 16 {(TOP + HEIGHT - BOTTOM) / 2:.1f})"')]
    for i in range(round(y_end / y_step) + 1):
        y = place(0, i * y_step)[1]
        lines += [f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#e2e2e2"/>',
                  label(LEFT - 8, y + 4, f"{i * y_step:g}", "end")]
    for i in range(round(x_end / x_step) + 1):
        x = place(i * x_step, 0)[0]
        lines += [f'<line x1="{x:.1f}" y1="{HEIGHT - BOTTOM}" x2="{x:.1f}" y2="{HEIGHT - BOTTOM + 4}" stroke="#888"/>',
                  label(x, HEIGHT - BOTTOM + 18, f"{i * x_step:g}", "middle")]
    return lines


def pareto(title, lines):
    """An SVG document. `lines`: {policy: [(load, tokens/s of one user, total tokens/s), ...]}."""
    points = [point for one in lines.values() for point in one]
    x_end, x_step = axis(max((point[1] for point in points), default=1))
    y_end, y_step = axis(max((point[2] for point in points), default=1))

    def place(user, total):
        return LEFT + user / x_end * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - total / y_end * (HEIGHT - TOP - BOTTOM)

    svg = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
           'font-family="system-ui, sans-serif" font-size="12" fill="#333">', '<rect width="100%" height="100%" fill="#ffffff"/>',
           *axes(title, x_end, x_step, y_end, y_step, place)]
    for i, (policy, one) in enumerate(lines.items()):
        color = "#222222" if policy == "adaptive" else COLORS[i % len(COLORS)]
        style = f'stroke="{color}" stroke-width="{2.6 if policy == "adaptive" else 1.5}"' + (
            ' stroke-dasharray="6 4"' if policy == "off" else "")
        places = [place(user, total) for _, user, total in one]
        svg.append(f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in places)}" fill="none" {style}/>')
        for (load, _, _), (x, y) in zip(one, places):
            svg += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="{color}"/>',
                    label(x + 5, y - 5, f"{load:g}", more=' font-size="9"')]
        y = TOP + 8 + 18 * i
        svg += [f'<line x1="{WIDTH - RIGHT + 12}" y1="{y - 4}" x2="{WIDTH - RIGHT + 32}" y2="{y - 4}" {style}/>',
                label(WIDTH - RIGHT + 38, y, policy)]
    return "\n".join([*svg, "</svg>"]) + "\n"


def pareto_of_reports(title, reports):
    lines = {}
    for report in reports:
        for cell in report["cells"]:
            lines.setdefault(cell["policy"], []).append(
                (cell["concurrency"], cell["user_tokens_per_s"], cell["tokens_per_s"]["median"]))
    return pareto(title, lines)
