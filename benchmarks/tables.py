"""Tables of what was measured, as Markdown: one function for each, from a result's JSON to text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

Result = dict[str, Any]
Figure = dict[str, float]
"""A median with its lowest and highest."""
Table = Callable[[Result], str]

PARTS = ("encoder", "prefill", "decode")
AXIS_NAMES = {
    "max_running": "requests at once",
    "prompt_words": "words of the prompt",
    "new_tokens": "new tokens",
    "images_each": "images of a request",
}


def skipping(result: Result) -> str:
    """Speed, cost and agreement under each setting."""
    baseline = result["settings"][0]
    rate = result["matmul_flops_per_second"]["median"] / 1e9
    return _table(
        (
            "setting",
            "images/s",
            "prefill s",
            "decode s",
            "prefill FLOPs",
            "KV per image",
            "shapes right",
            "same answer",
        ),
        (_skipping_row(setting, baseline, result["images"]) for setting in result["settings"]),
        f"{_where(result)} Median (lowest–highest) of {result['rounds']} rounds over {result['images']} images, model "
        f"`{result['model']}` in {result['dtype']}, matrix products at {rate:.0f} GFLOP/s in the same run. FLOPs are "
        "modelled (causal count, language model only, all images together). Shapes are right when a caption names "
        "every colour and shape and invents none.",
    )


def engines(result: Result) -> str:
    """Throughput beside the peers, each in its best layout; a peer that did not run stands there as absent."""
    speeds = {run["name"]: run["images_per_second"] for run in result["runs"]}
    peers = [engine["name"] for engine in result["engines"] if engine["name"] != "skipvision"]
    rows = [
        (name, _spread(speed, 2), *(_ratio(speed, speeds.get(peer)) for peer in peers))
        for name, speed in speeds.items()
    ]
    rows += [(engine["name"], f"absent: {engine['absent']}", *("" for _ in peers)) for engine in _absent(result)]
    return _table(
        ("engine", "images/s", *(f"x {peer}" for peer in peers)),
        rows,
        f"{_where(result)} Median (lowest–highest) of {result['rounds']} rounds over {result['images']} images, "
        f"{result['new_tokens']} new tokens each, random weights in {result['dtype']}, from decoded images to tokens. "
        f"{_same_answers(result)}{_layouts(result)}",
    )


def gpu(result: Result) -> str:
    """One shape on a GPU beside transformers at its best batch size, and beside what the device's ceilings allow."""
    [(shape, found)] = [(name, part) for name, part in result.items() if isinstance(part, dict) and "runs" in part]
    ours = [run for run in found["runs"] if "work" in run]
    theirs = [run for run in found["runs"] if "work" not in run]
    best = max((run["images_per_second"] for run in theirs), key=lambda speed: speed["median"])
    rows = [
        (
            run["name"],
            _spread(run["images_per_second"], 1),
            _ratio(run["images_per_second"], best),
            _ratio(run["images_per_second"], ours[0]["images_per_second"]),
            f"{run['images_per_second']['median'] / run['limit_images_per_second']:.0%}" if "work" in run else "",
            *(f"{run[f'{part}_seconds']['median']:.2f}" if "work" in run else "" for part in ("encode", *PARTS[1:])),
        )
        for run in found["runs"]
    ]
    matmul, copy = (found[name]["median"] for name in ("matmul_flops_per_second", "copy_bytes_per_second"))
    return _table(
        ("engine", "images/s", "x transformers", "x off", "of its limit", "encode s", "prefill s", "decode s"),
        rows,
        f"{_where(result)} Shape {shape} with random weights in {result['dtype']}. Median (lowest–highest) of "
        f"{found['rounds']} rounds over {found['images']} images, {found['new_tokens']} new tokens each, up to "
        f"{found['running']} requests at once; transformers' `generate` at its best batch size of those that stand "
        f"here. {_gpu_answers(result, found)} The limit is what square matrix products "
        f"({matmul / 1e12:.0f} TFLOP/s) and large copies "
        f"({copy / 1e12:.2f} TB/s), measured in the same run, would allow for the executed work: "
        "operations of the vision tower and the prompts, and bytes of weights, keys and values while decoding, one "
        "after the other. Stages in seconds by the GPU's own events.",
    )


def job(result: Result) -> str:
    """A whole job beside its engine alone."""
    width, height = result["image_size"]
    return _table(
        ("setting", "engine alone, images/s", "in the job, by its busy seconds", "ratio", "job, once running",
         "first commit after s", "whole job s", "GPU busy s"),
        (_job_row(setting) for setting in result["settings"]),
        f"{_where(result)} Ray {result['packages']['ray']}. Shape {result['shape']} with random weights in "
        f"{result['dtype']}, {result['images']} JPEG photos of {width} × {height}, {result['new_tokens']} new tokens "
        f"each, up to {result['running']} rows at once. The engine alone has its images decoded and in memory, median "
        f"(lowest–highest) of {result['rounds']} rounds; the job, one round, reads and decodes files in Ray's tasks "
        "and commits every row. Once running is from the first commit to the last; before it Ray starts, the model is "
        "loaded and the GPU warms up.",
    )  # fmt: skip


def _job_row(setting: Result) -> tuple[str, ...]:
    alone, job = setting["engine_alone"]["images_per_second"], setting["job"]
    busy = sum(device["engine"] for device in job["devices"])
    return (
        setting["skip"],
        _spread(alone, 1),
        f"{job['ok'] / busy:.1f}",
        f"{job['ok'] / busy / alone['median']:.2f}",
        f"{job['images_per_second_once_running']:.1f}",
        f"{job['first_commit_seconds']:.1f}",
        f"{job['wall_seconds']:.1f}",
        f"{busy:.1f}",
    )


def _gpu_answers(result: Result, found: Result) -> str:
    """How far the answers are those of the CPU, and those of transformers."""
    checked = result["agreement_with_cpu"]
    images = sum(each["images"] for each in checked)
    same = sum(each["same_answers_in_float32"] for each in checked)
    taught = "; ".join(f"{each['model']} at {each['skip']} {each['same_choices_when_taught']:.1%}" for each in checked)
    return (
        f"Checked before: in float32 {same} of {images} answers of smaller models are the CPU's; of the choices that "
        f"the CPU makes in float32, {result['dtype']} makes, token by token: {taught}. At this size, with random "
        f"weights in {result['dtype']}, {found['same_tokens_as_transformers']} of {found['images']} whole answers "
        "are those of transformers, token for token."
    )


def service(result: Result) -> str:
    """What HTTP and Ray Serve add to one request, and what they leave of the engine's throughput."""
    rows = [
        (
            f"one request at a time: {kind['kind']}",
            *(f"{kind[part]['p50_ms']:.1f} ms, {kind[part]['p99_ms']:.1f}" for part in ("engine_alone", "service")),
            f"{kind['added']['p50_ms']:.1f} ms, {kind['added']['p99_ms']:.1f} added",
        )
        for kind in result["kinds"]
    ]
    for measured in result["throughput"]:
        unit = "requests" if measured["model"] == "zoo" else "tokens"
        alone, served = (measured[part][f"{unit}_per_second"] for part in ("engine_alone", "service"))
        rows.append(
            (
                f"at once: `{measured['model']}`",
                f"{alone:.0f} {unit}/s",
                f"{served:.0f} {unit}/s",
                f"{served / alone:.1%}",
            )
        )
    return _table(
        ("asked", "engine alone", "service", "what that is"),
        rows,
        f"{_where(result)} {result['requests']} requests one after another, of 8 tokens with the model that ships; "
        f"{result['load']} at once, of 64 tokens, with it, whose answers end after two or three, and with random "
        "weights of 92 million parameters, whose answers end when they must. Median and 99th percentile. The engine "
        "has a core to itself, in its replica as when it is alone; the client, the door and Ray share the other. What "
        "is added is a request's time less the engine's own in it; to images, decoding in a child process. Ray "
        f"{result['serve']['ray']}, uvicorn {result['serve']['uvicorn']}.",
    )


def limits(result: Result) -> str:
    """How near the engine comes to what the machine's matrix products and copies allow."""
    matmul, copy = (result[name]["median"] for name in ("matmul_flops_per_second", "copy_bytes_per_second"))
    return _table(
        ("engine", "stock work", "its limit", "reached", "executed work", "its limit", "reached", "of matrix products, "
         "prefill", "of copies, decode"),
        (_limits_row(run, result["images"], matmul, copy) for run in result["runs"] if "work" in run),
        f"The same run. Work of one image, modelled: encoder, prefill and decode. Stock is the whole model; executed "
        "leaves out the encoder's layers above the one that is read and, of the last decoder layer, rows that no token "
        f"is chosen from. Limits are images/s at the rate of square matrix products, {matmul / 1e9:.0f} GFLOP/s. "
        "Prefill's share is of the executed work in the seconds of that stage. Decode's is of the bytes of weights and "
        f"of keys and values that its steps read at the rate of large copies, {copy / 1e9:.1f} GB/s.",
    )  # fmt: skip


def stages(result: Result) -> str:
    """Where the engine's seconds go."""
    runs = [run for run in result["runs"] if "stage_seconds" in run]
    names = list(runs[0]["stage_seconds"])
    return _table(
        ("engine", *(f"{name} s" for name in names)),
        ((run["name"], *(f"{run['stage_seconds'][name]['median']:.2f}" for name in names)) for run in runs),
        f"The same run; seconds for {result['images']} images, medians. A step that reads prompts and decodes is "
        "shared out by rows.",
    )


def latency(result: Result) -> str:
    """One image at a time: seconds to the first token and to the last."""
    baseline = result["runs"][0]
    figures = ("first_token_seconds", "seconds")
    rows = [
        (
            run["name"],
            *(cell for name in figures for cell in (_spread(run[name], 3), _change(run[name], baseline[name]))),
        )
        for run in result["runs"]
    ]
    rows += [(engine["name"], f"absent: {engine['absent']}", "", "", "") for engine in _absent(result)]
    return _table(
        ("engine", "first token s", f"to {baseline['name']}", "whole answer s", f"to {baseline['name']}"),
        rows,
        f"{_where(result)} Median (lowest–highest); one image at a time, {result['new_tokens']} new tokens, from the "
        "decoded image on.",
    )


def sweep(result: Result) -> str:
    """Throughput against one thing at a time."""
    base = result["base"]
    speeds = {tuple(point[axis] for axis in base): point["images_per_second"] for point in result["points"]}
    settings = list(result["points"][0]["images_per_second"])
    rows = []
    for axis, values in result["axes"].items():
        for value in values:
            everything, skipping = speeds[tuple({**base, axis: value}.values())].values()
            speed = _spread(everything, 2), _spread(skipping, 2)
            rows.append((AXIS_NAMES[axis], f"{value:,}", *speed, _ratio(skipping, everything)))
    return _table(
        ("what changes", "to", *(f"images/s, {setting}" for setting in settings), "ratio"),
        rows,
        f"{_where(result)} Median (lowest–highest) of {result['rounds']} rounds over {result['images']} images, in "
        f"{result['dtype']}; the others stay at {', '.join(f'{base[axis]} {AXIS_NAMES[axis]}' for axis in base)}.",
    )


def memory(result: Result) -> str:
    """What a running sequence holds."""
    return _table(
        ("setting", "tokens read", "tokens cached", "keys and values", "pages held, per sequence", "process grew by"),
        (_memory_row(setting, result["requests"]) for setting in result["settings"]),
        f"{_where(result)} {result['requests']} requests at once, {result['new_tokens']} new tokens each, in a process "
        "that had answered nothing before. Keys and values are counted from the plan, after the prompt; pages held and "
        "the growth of the process, with its activations, are what was measured at their most.",
    )


def questions(result: Result) -> str:
    """Several questions about each image: what is done once where rows are grouped, and again where they are not."""
    most = result["settings"][-1]
    rows = (
        (
            setting["setting"],
            _spread(setting["seconds"], 1),
            _ratio(most["seconds"], setting["seconds"]),
            f"{setting['images_encoded']['median']:,.0f}",
            f"{setting['prompt_tokens_read']['median']:,.0f}",
            _spread(setting["prepare_seconds"], 1),
            _spread(setting["prefill_seconds"], 1),
        )
        for setting in result["settings"]
    )
    return _table(
        ("rows", "job s", "faster", "images encoded", "prompt tokens read", "reading and preparing s", "prefill s"),
        rows,
        f"{_where(result)} Median (lowest–highest) of {result['rounds']} jobs of {result['questions']} questions about "
        f"each of {result['images']} JPEG images of {result['side']} pixels a side, model `{result['model']}` in "
        "float32, the first question about every image before the second. A job's seconds are those of the whole "
        "command but for the start of Ray: freezing, loading the model, committing, the report. The answers were the "
        "same.",
    )


def training(result: Result) -> str:
    """Fine-tuning steps with skipping on against off."""
    what = "adapters" if result["lora"] else "projector and decoder"
    dtypes = {setting["dtype"] for shape in result["shapes"] for setting in shape["settings"]}
    return _table(
        (
            "shape", "setting", "visual tokens", "decoder reads", "step s", "to off", "forward s", "backward s",
            "vision side s", "peak memory", "to off",
        ),
        (_training_row(shape, setting) for shape in result["shapes"] for setting in shape["settings"]),
        f"{_where(result)} Median (lowest–highest) of {result['rounds']} steps in turns, {result['samples']} "
        f"conversations of {result['text_tokens']} text tokens and a picture each, {what} trained with AdamW in "
        f"{', '.join(sorted(dtypes))}, activations checkpointed by layer, matrix products at "
        f"{result['matmul_flops_per_second'] / 1e9:,.0f} GFLOP/s in the same run. The vision side, measured alone, is "
        "part of forward and the same in both rows.",
    )  # fmt: skip


def quality(result: Result) -> str:
    """Answers of the shipped twins under every setting, in the shape of the paper's table."""
    first = result["trials"][0]
    strata = [*result["strata"]]
    rows = []
    for trial in result["trials"]:
        accuracy, change = trial["accuracy"], trial["difference"]
        steps = trial["step_seconds"]
        rows.append((
            f"`{trial['name']}`",
            *(f"{accuracy[stratum]['mean']:.1%}" for stratum in strata),
            f"{accuracy['average']:.1%}",
            f"{accuracy['average'] / first['accuracy']['average']:.1%}",
            "–" if trial is first else f"{change['low']:+.1%} to {change['high']:+.1%}",
            f"{trial['kept_tokens']:.0f}",
            "–" if trial["paper_flops_share"] is None else f"{trial['paper_flops_share']:.0%}",
            f"{1000 * trial['latency_seconds']:.1f}",
            "–" if steps is None else f"{steps / first['step_seconds']:.0%}",
        ))  # fmt: skip
    each = next(iter(result["strata"].values()))
    return _table(
        ("trial", *strata, "average", "of the first", "difference, 95%", "kept", "FLOPs", "latency ms", "training"),
        rows,
        f"{_where(result)} {each} held-out exercises of each stratum, one seed of training. Accuracies are mean "
        "grades, their average counts each stratum once; the difference to the first trial is over the same items, by "
        "a paired bootstrap. FLOPs: prefill, visual tokens only, as the paper counts. Latency: until the first token "
        "of an answer when nothing else is asked, vision tower included; trials of one model take turns. Training: "
        "seconds of a step under the setting, of the round in which the twins part, median of "
        f"{result['rounds']} in turns.",
    )


def faults(result: Result) -> str:
    """Jobs that were broken, by suite, and what was wrong with them in the end. Suites not played are left out."""
    wrong = ("lost", "doubled", "different", "unfinished")
    rows, struck, runs = [], 0, 0
    for suite, name in FAULT_SUITES.items():
        if cells := result.get(suite):
            sums = {count: sum(cell[count] for cell in cells.values()) for count in ("runs", "unexpected", *wrong)}
            cases = f"{len(cells)} of place and kind" if suite != "poison" else f"{len(cells)} kinds of row"
            rows.append((name, cases, *(f"{sums[count]:,}" for count in ("runs", *wrong, "unexpected"))))
            struck += sum(cell["struck"] for cell in cells.values())
            runs += sums["runs"]
    if by_lot := result.get("chaos"):
        cases = ", ".join(f"{count} x {kind}" for kind, count in sorted(by_lot["strikes"].items()))
        hung = by_lot["attempts"].get("hung", 0)
        rows.append((f"the same cluster, by lot, {by_lot['seconds'] / 60:.0f} minutes", cases,
                     *(f"{by_lot[count]:,}" for count in ("jobs", *wrong)), f"{hung:,}"))  # fmt: skip
    return _table(
        ("jobs", "cases", "jobs broken", "rows lost", "rows doubled", "answers different", "unfinished",
         "ends that nobody expected"),
        rows,
        f"{_where_by_suite(result)} The failure that was meant happened in {struck:,} of {runs:,} jobs.",
    )  # fmt: skip


FAULT_SUITES = {
    "protocol": "processes without Ray, disk and S3 API",
    "cluster": "Ray cluster of four nodes",
    "poison": "the same cluster, rows that end their processes",
}


def _where_by_suite(result: Result) -> str:
    """Where each suite was played last; its cells, in the JSON, name the commits they were played at."""
    suites = [suite for suite in (*FAULT_SUITES, "chaos") if result.get(suite)]
    return " ".join(f"Suite `{suite}`: m{_where(result['measured'][suite])[1:]}" for suite in suites)


def urls(result: Result) -> str:
    """Of hostile URLs, by group: how many led each client to something inside."""
    clients = result["clients"]
    groups = next(iter(clients.values()))["groups"]
    rows = [(name, f"{group['urls']:,}", *(f"{client['groups'][name]['hits']:,}" for client in clients.values()))
            for name, group in groups.items()]  # fmt: skip
    inside = (sum(group["hits"] for group in client["groups"].values()) for client in clients.values())
    rows.append(("all", f"{sum(group['urls'] for group in groups.values()):,}", *(f"{hits:,}" for hits in inside)))
    good = ", ".join(f"{name} {client['good']}" for name, client in clients.items())
    unexpected = sum(len(client["unexpected"]) for client in clients.values())
    versions = ", ".join(f"{name} {version}" for name, version in result["fetched_with"].items())
    return _table(
        ("URLs", "how many", *(f"inside: {name}" for name in clients)),
        rows,
        f"{_where(result)} With {versions}. Good URLs that were fetched in the same network: {good}. Good URLs that "
        f"were not, and hostile ones that ended otherwise than expected: {unexpected}.",
    )


def checkpointing(result: Result) -> str:
    """What Ray Data's own checkpointing makes of the same troubles."""
    cases = result.get("ray_checkpointing")
    if not cases:
        return "*Not played yet: `make faults`.*"
    rows = [(name, f"{case['lost']:,}", f"{case['doubled']:,}", _how_it_went(case)) for name, case in cases.items()]
    version, count = next((case["ray"], case["rows"]) for case in cases.values())
    return _table(
        ("trouble", "rows lost", "rows doubled", ""),
        rows,
        f"{_where(result['measured']['ray_checkpointing'])} Ray {version}, {count:,} rows in ten blocks, written to "
        "Parquet with `CheckpointConfig` at its defaults unless it says otherwise, on a disk.",
    )


def resume(result: Result) -> str:
    """A very large job that goes on."""
    rows = [
        (name, f"{result[key]['seconds']:,.0f} s", f"{result[key]['driver_bytes'] / 2**20:,.0f} MiB")
        for name, key in (("planned, from a CSV file", "planning"), ("gone on with, half of it done", "going_on"))
    ]
    return _table(
        ("", "time", "most memory of the driver"),
        rows,
        f"{_where(result)} {result['rows']:,} rows in {result['shards']:,} shards, of which "
        f"{result['committed_shards']:,} were committed. Planned: until the plan stands. Gone on with: from the start "
        "of the process until an engine is asked about a shard that was missing.",
    )


def _how_it_went(case: Result) -> str:
    if failed := case.get("drivers_failed"):
        return f"{failed} of 2 drivers failed"
    if "deaths" in case:
        ended = "ended" if case["ended"] else "had not ended"
        return f"{ended} after {case['seconds']:g} s and {case['deaths']} deaths"
    return ""


def kernels(result: Result) -> str:
    """What was replaced in decoding on a CPU, before and now."""
    linear = [
        (f"linear layers, {each['rows']} rows", each["input_by_weight_seconds"], each["weight_by_input_seconds"],
         each["flops"], "GFLOP/s")
        for each in result["linear"]
    ]  # fmt: skip
    attention = [
        (f"attention, {each['sequences']} {what} of {each['tokens']} tokens", each["gathered_seconds"], each[now],
         each["kv_bytes"], "GB/s")
        for kind, what, now in (
            ("decode_attention", "caches", "in_place_seconds"),
            ("trunk_attention", "forks of one cache", "from_trunk_seconds"),
        )
        for each in result[kind]
    ]  # fmt: skip
    return _table(
        ("one step of all layers", "before, ms", "now, ms", "ratio", "now"),
        (_kernel_row(*each) for each in (*linear, *attention)),
        f"{_where(result)} Medians of {result['rounds']} rounds.",
    )


def fuzz(result: Result) -> str:
    """What was tried, and what came of it."""
    rows = [
        (
            target["what"],
            f"{target['executions']:,}",
            f"{target['seconds']:,.0f} s",
            f"{target['edges']:,}",
            str(target["findings"]),
        )
        for target in result["targets"]
    ]
    return _table(
        ("what, and what it may end as", "executions", "time", "branches reached", "findings"),
        rows,
        f"{_where(result)} atheris {result['fuzzer']['atheris']}. The time counts starting up.",
    )


def absent_peers(result: Result) -> str:
    """Who did not run, and why, in a line."""
    missing = [f"{engine['name']} ({engine['absent']})" for engine in _absent(result)]
    return f"absent: {', '.join(missing)}" if missing else "every peer ran"


def _skipping_row(setting: Result, baseline: Result, images: int) -> tuple[str, ...]:
    is_baseline = setting is baseline
    return (
        "all tokens" if is_baseline else f"skipping, `{setting['skip']}`",
        _spread(setting["images_per_second"], 1),
        _spread(setting["prefill_seconds"], 2),
        _spread(setting["decode_seconds"], 2),
        f"{setting['prefill_flops'] / 1e9:.1f} G ({setting['prefill_flops'] / baseline['prefill_flops']:.0%})",
        f"{setting['kv_bytes'] / images / 2**10:.0f} KiB",
        f"{setting['shapes_right'] / images:.1%}",
        "–" if is_baseline else f"{setting['same_answer_as_all_tokens']} of {images}",
    )


def _limits_row(run: Result, images: int, matmul: float, copy: float) -> tuple[str, ...]:
    work, speed = run["work"], run["images_per_second"]["median"]
    cells = []
    for kind in ("stock_flops", "executed_flops"):
        flops = sum(work[kind][part] for part in PARTS)
        cells += [f"{flops / 1e9:.1f} GFLOP", f"{matmul / flops:.2f}", f"{speed * flops / matmul:.0%}"]
    prefill = images * work["executed_flops"]["prefill"] / run["stage_seconds"]["prefill"]["median"]
    decode = run["decode_bytes"] / run["stage_seconds"]["decode"]["median"]
    return (run["name"], *cells, f"{prefill / matmul:.0%}", f"{decode / copy:.0%}")


def _memory_row(setting: Result, requests: int) -> tuple[str, ...]:
    per_token = setting["work"]["cached_bytes"] / setting["cached_tokens"]
    return (
        setting["skip"],
        str(setting["prompt_tokens"]),
        str(setting["cached_tokens"]),
        _mebibytes(setting["work"]["cached_bytes"]),
        _mebibytes(setting["held_tokens"] * per_token / requests),
        _mebibytes(setting["grown_bytes"]),
    )


def decoding(result: Result) -> str:
    """Images per second of a core by each way, memory, and what reduced pixels differ by."""
    heads = (
        "image", "for", "Pillow and processor", "exact", "ratio", "reduced", "ratio", "memory, exact", "reduced",
        "photo differs by", "letters by",
    )  # fmt: skip
    return _table(
        heads,
        map(_decoding_row, result["kinds"]),
        f"{_where(result)} Images per second of one core, by the processor's own seconds: median (lowest–highest) of "
        f"{result['rounds']} rounds in turns, on a machine that had other work to do, so that ratios say more than "
        "rates. From bytes to what goes to the device; Pillow's processor also rescales and normalises there. Memory "
        "is what one image adds to the process at its most. Reduced pixels differ from exact ones by so many of 255 "
        f"levels at most, and on average. Pillow {result['decoder_versions']['pillow']}.",
    )


def _decoding_row(kind: Result) -> tuple[str, ...]:
    plain, exact, reduced = (kind["ways"][name] for name in ("plain", "exact", "reduced"))
    rates = [way["images_per_core_second"] for way in (plain, exact, reduced)]
    differs = [kind["reduced_from_exact"][drawn] for drawn in ("photo", "page")]
    return (
        f"{kind['format']} {kind['width']} × {kind['height']}",
        kind["family"],
        _spread(rates[0], 1),
        _spread(rates[1], 1),
        _ratio(rates[1], rates[0]),
        _spread(rates[2], 1),
        _ratio(rates[2], rates[0]),
        _mebibytes(exact["peak_bytes"]),
        _mebibytes(reduced["peak_bytes"]),
        *(f"{each['max']} ({each['mean']:.2f})" for each in differs),
    )


def _kernel_row(name: str, before: Figure, now: Figure, amount: float, unit: str) -> tuple[str, ...]:
    milliseconds = (f"{each['median'] * 1e3:.1f}" for each in (before, now))
    return (name, *milliseconds, _ratio(before, now), f"{amount / now['median'] / 1e9:.0f} {unit}")


def _absent(result: Result) -> list[Result]:
    return [engine for engine in result["engines"] if engine["absent"] is not None]


def _same_answers(result: Result) -> str:
    """How many answers of those who read every token are transformers' own."""
    counts = {run["name"]: run.get("same_answers_as_transformers") for run in result["runs"]}
    said = [f"{counts[name]} of {name}" for name in ("skipvision off", "vllm") if counts.get(name) is not None]
    return f"Of {result['images']} answers, {' and '.join(said)} are transformers' token for token. " if said else ""


def _layouts(result: Result) -> str:
    ran = [engine for engine in result["engines"] if engine["absent"] is None]
    each = "; ".join(f"{engine['name']}, {engine['layout']}, {engine['threads']} threads each" for engine in ran)
    return f"In the best layout of each, by a trial in the same run: {each}."


def _training_row(shape: Result, setting: Result) -> tuple[str, ...]:
    baseline = shape["settings"][0]
    peak = setting["peak_bytes"] / baseline["peak_bytes"] - 1
    return (
        shape["shape"],
        setting["skip"],
        f"{setting['visual_tokens']:,}",
        f"{setting['decoder_tokens']:,}",
        _spread(setting["step_seconds"], 2),
        _change(setting["step_seconds"], baseline["step_seconds"]),
        f"{setting['forward_seconds']['median']:.2f}",
        f"{setting['backward_seconds']['median']:.2f}",
        f"{setting['vision_seconds']:.2f}",
        f"{setting['peak_bytes'] / 2**30:.2f} GiB",
        "–" if setting is baseline else f"{peak:+.0%}",
    )


def _where(result: Result) -> str:
    machine, versions = result["machine"], result["versions"]
    where = machine["gpu"] or f"{machine['processor']}, {machine['threads']} threads"
    commit = (result["commit"] or "none")[:10] + (" with changes" if result["uncommitted_changes"] else "")
    return (
        f"Measured by `{result['command']}` at commit {commit} on {where}, torch {versions['torch']}, transformers "
        f"{versions['transformers']}."
    )


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], caption: str) -> str:
    """Left-aligned names, right-aligned figures, and the circumstances below."""
    lines = [" | ".join(cells) for cells in (heads, ["---", *["---:"] * (len(heads) - 1)], *rows)]
    return "\n".join([*(f"| {line} |" for line in lines), "", f"*{caption}*"])


def _spread(value: Figure, digits: int) -> str:
    return f"{value['median']:.{digits}f} ({value['min']:.{digits}f}–{value['max']:.{digits}f})"


def _ratio(value: Figure, to: Figure | None) -> str:
    return "absent" if to is None else f"{value['median'] / to['median']:.2f}"


def _change(value: Figure, to: Figure) -> str:
    return "–" if value is to else f"{value['median'] / to['median'] - 1:+.0%}"


def _mebibytes(count: float) -> str:
    return f"{count / 2**20:.1f} MiB"
