"""The parts of the dashboards. Grafana's builders (grafana-foundation-sdk) check every field."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from grafana_foundation_sdk.builders import bargauge, common, dashboard, heatmap, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
#: The label selector of all queries, and that with the model.
WHO = 'job=~"$job",instance=~"$instance"'
MODEL = f'{WHO},model=~"$model"'
RATE = "$__rate_interval"
#: Limits of a panel: the values from which it is orange, and red.
Limits = tuple[float, float]

Query = tuple[str, str]


def query(expr: str, legend: str = "", *, instant: bool = False) -> prometheus.Dataquery:
    built = prometheus.Dataquery().expr(expr).legend_format(legend or "__auto").datasource(SOURCE)
    return built.instant() if instant else built.range()


def steps(limits: Limits | None, *, low_is_bad: bool = False) -> dashboard.ThresholdsConfig:
    """Thresholds: green, orange and red from ``limits`` on (``low_is_bad``: red below the first, orange below the
    second)."""
    colours = ["red", "orange", "green"] if low_is_bad else ["green", "orange", "red"]
    edges: list[float | None] = [None, *(limits or ())]
    if limits is None:
        colours = ["green"]
    found = [models.Threshold(value=edge, color=colour) for edge, colour in zip(edges, colours, strict=True)]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(found)


def lines(
    title: str, unit: str, text: str, *queries: Query, limits: Limits | None = None, most: float | None = None
) -> timeseries.Panel:
    """A panel of values over time; ``limits`` are dashed lines, ``most`` is the upper end of the axis."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(text)
        .datasource(SOURCE)
        .unit(unit)
        .min(0)
        .span(8)
        .height(7)
        .fill_opacity(8)
        .show_points(common_models.VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .display_mode(common_models.LegendDisplayMode.LIST)
            .placement(common_models.LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs([])
        )
        .tooltip(
            common.VizTooltipOptions()
            .mode(common_models.TooltipDisplayMode.MULTI)
            .sort(common_models.SortOrder.DESCENDING)
        )
        .thresholds(steps(limits))
    )
    if limits is not None:
        dashed = common.GraphThresholdsStyleConfig().mode(common_models.GraphTresholdsStyleMode.DASHED)
        panel.thresholds_style(dashed)
    if most is not None:
        panel.max(most)
    for expr, legend in queries:
        panel.with_target(query(expr, legend))
    return panel


def number(
    title: str, unit: str, text: str, expr: str, limits: Limits | None = None, *, low_is_bad: bool = False
) -> stat.Panel:
    """A panel of one number, with its history in the background."""
    return (
        stat.Panel()
        .title(title)
        .description(text)
        .datasource(SOURCE)
        .unit(unit)
        .span(4)
        .height(4)
        .graph_mode(common_models.BigValueGraphMode.AREA)
        .color_mode(common_models.BigValueColorMode.VALUE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(steps(limits, low_is_bad=low_is_bad))
        .with_target(query(expr))
    )


def bars(title: str, unit: str, text: str, expr: str, legend: str, limits: Limits, *, low_is_bad: bool = False) -> Any:
    return (
        bargauge.Panel()
        .title(title)
        .description(text)
        .datasource(SOURCE)
        .unit(unit)
        .min(0)
        .span(8)
        .height(7)
        .orientation(common_models.VizOrientation.HORIZONTAL)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(steps(limits, low_is_bad=low_is_bad))
        .with_target(query(expr, legend, instant=True))
    )


def histogram(title: str, unit: str, text: str, metric: str) -> heatmap.Panel:
    """A panel of a histogram over time."""
    target = query(f"sum by (le) (increase({metric}_bucket{{{MODEL}}}[{RATE}]))", "{{le}}")
    return (
        heatmap.Panel()
        .title(title)
        .description(text)
        .datasource(SOURCE)
        .unit(unit)
        .span(8)
        .height(7)
        .with_target(target.format(PromQueryFormat.HEATMAP))
    )


def chosen(name: str, label: str, asked: str, *, many: bool = True) -> dashboard.QueryVariable:
    """A variable: values of a label, from the query ``asked``. ``many``: several can be selected, by default all."""
    variable = (
        dashboard.QueryVariable(name)
        .label(label)
        .query(asked)
        .datasource(SOURCE)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
    )
    if many:
        variable.multi(True).include_all(True).all_value(".*")
        variable.current(models.VariableOption(selected=True, text="All", value="$__all"))
    return variable


def board(
    uid: str, title: str, text: str, rows: Sequence[tuple[str, Sequence[Any]]], *variables: dashboard.QueryVariable
) -> dashboard.Dashboard:
    built = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(text)
        .tags(["streamer"])
        .readonly()
        .timezone("browser")
        .time("now-1h", "now")
        .refresh("30s")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard.DashboardLink("streamer")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags(["streamer"])
            .as_dropdown(True)
            .include_vars(True)
            .keep_time(True)
        )
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .with_variable(chosen("job", "job", "label_values(streamer_build_info, job)"))
        .with_variable(chosen("instance", "daemon", 'label_values(streamer_build_info{job=~"$job"}, instance)'))
    )
    for variable in variables:
        built.with_variable(variable)
    for name, panels in rows:
        built.with_row(dashboard.Row(name))
        for panel in panels:
            built.with_panel(panel)
    return built


def models_of(metric: str) -> dashboard.QueryVariable:
    return chosen("model", "model", f"label_values({metric}{{{WHO}}}, model)")


def rate(metric: str, by: str, selector: str = WHO) -> str:
    return f"sum by ({by}) (rate({metric}{{{selector}}}[{RATE}]))"


def quantile(level: float, metric: str, by: str = "model", selector: str = MODEL) -> str:
    inside = f"sum by ({', '.join(filter(None, (by, 'le')))}) (rate({metric}_bucket{{{selector}}}[{RATE}]))"
    return f"histogram_quantile({level}, {inside})"


def mean(metric: str) -> str:
    return f"{rate(metric + '_sum', 'model', MODEL)} / ({rate(metric + '_count', 'model', MODEL)} > 0)"


def written(built: dashboard.Dashboard) -> str:
    """The JSON for Grafana's provisioning, with numbered panels and queries."""
    found = json.loads(json.dumps(built.build(), cls=JSONEncoder))
    for number, panel in enumerate(found["panels"], 1):
        panel["id"] = number
        for letter, target in zip("ABCDEFGH", panel.get("targets", ()), strict=False):
            target["refId"] = letter
    return json.dumps(found, indent=1, sort_keys=True) + "\n"
