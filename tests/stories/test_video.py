"""Moving digits, their prediction and its errors, against loops and SciPy."""

import fcntl
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import ndimage

import ssm_jax
from ssm_jax import plots
from ssm_jax.commands.studies import video as video_command
from ssm_jax.config.load import load_config
from ssm_jax.data.prepare import DataPaths
from ssm_jax.layers.base import NoStateForm
from ssm_jax.stories import runs, setting
from ssm_jax.stories.video import data, task
from ssm_jax.stories.video.data import Scene, measured_periods, open_videos, paths
from ssm_jax.stories.video.model import VideoPredictor
from ssm_jax.stories.video.run import COLUMNS, Shown, errors_figure
from ssm_jax.trained.series import predict_file
from ssm_jax.training.optim import assign, groups_from

SCENE = Scene(16, (3.0, 0.3), 3, 6, 4, 5)
SMALL = {"d_model": 8, "d_state": 4, "width": 4, "groups": 2, "depth": 2}


def opened(data_dir, spec="video:smoke", **options):
    cfg = load_config(spec, options)
    return open_videos(cfg.data.to_dict(), DataPaths(data_dir, None))


def test_a_path_is_a_walk_that_turns_at_the_border():
    draws = np.random.default_rng(0).uniform(size=(3, 2, 4))
    found = paths(draws, (3.0, 0.3), 50)
    for b in range(3):
        for d, speed in enumerate((3.0, 0.3)):
            angle = 2 * np.pi * draws[b, d, 3]
            at = list(draws[b, d, 1:3])
            move = [0.15 * speed * np.sin(angle), 0.15 * speed * np.cos(angle)]
            for frame in range(50):
                np.testing.assert_allclose(found[b, d, frame], at, atol=1e-12)
                for axis in range(2):
                    at[axis] += move[axis]
                    if at[axis] < 0 or at[axis] > 1:
                        at[axis], move[axis] = min(max(at[axis], 0), 1), -move[axis]


def test_periods_are_those_of_bounces():
    fast, slow, slowest = measured_periods(SCENE._replace(speeds=(3.0, 0.3, 0.01)))
    assert 4.4 <= fast <= 10  # 2 / 0.45 at least, and a frame more at each border
    assert 44 <= slow <= 100
    assert slowest == np.inf


@pytest.mark.parametrize("colours", [3, 1])
def test_frames_are_sprites_on_black(colours):
    scene = SCENE._replace(colours=colours)
    rng = np.random.default_rng(1)
    sprites = rng.integers(0, 256, (2, 2, 7, 7)).astype(np.uint8)
    places = rng.integers(0, 10, (2, 2, 3, 2)).astype(np.int16)
    canvas = np.zeros((2, 3, 16, 16, colours))
    for b, t, d in np.ndindex(2, 3, 2):
        row, column = places[b, d, t]
        canvas[b, t, row : row + 7, column : column + 7, scene.channels[d]] += sprites[b, d]
    found = scene.draw(jnp.asarray(sprites), jnp.asarray(places))
    np.testing.assert_allclose(found, 2 * np.minimum(canvas, 255) / 255 - 1, atol=1e-6)
    assert scene.channels == ((0, 2) if colours == 3 else (0, 0))


def test_examples_are_functions_of_seed_split_and_number(tmp_path):
    dataset = opened(tmp_path)
    one = dataset.gather("train", np.array([3, 5]))
    again = opened(tmp_path).gather("train", np.array([5, 1, 3]))
    for name in ("inputs", "places"):
        np.testing.assert_array_equal(one[name], again[name][[2, 0]])
        assert not np.array_equal(one[name][0], one[name][1])
    other = opened(tmp_path, **{"data.seed": 1})
    assert other.fingerprint != dataset.fingerprint
    assert not np.array_equal(other.gather("train", np.array([3]))["places"], one["places"][:1])
    assert one["places"].min() >= 0 and one["places"].max() <= 16 - 7


def test_digits_of_a_package_are_shared_out_and_halved(tmp_path):
    folder = tmp_path / "packages" / "smnist"
    folder.mkdir(parents=True)
    x = np.random.default_rng(0).integers(0, 256, (40, 784, 1))
    np.savez(folder / "smnist.npz", x=x.astype(np.float32), y=np.arange(40) % 10)
    dataset = opened(tmp_path, "video", **{"data.n_train": 5})
    assert {split: len(s) for split, s in dataset.sprites.items()} == {
        "train": 28, "val": 4, "test": 8
    }  # fmt: skip
    halved = x.reshape(40, 14, 2, 14, 2).mean(axis=(2, 4))
    np.testing.assert_array_equal(dataset.sprites["val"], np.rint(halved[7::10]))


@pytest.mark.parametrize("colours", [3, 1])
def test_errors_without_a_model(colours, tmp_path, monkeypatch):
    monkeypatch.setattr(data, "PIXELS", 16 * 16 * 6 * 2)  # two videos at a time, of 3
    dataset = opened(tmp_path, **{"data.n_val": 3, "data.video.colours": colours})
    batch, scene = dataset.gather("val", np.arange(3)), dataset.scene
    video = (np.asarray(scene.draw(batch["inputs"], batch["places"]), float) + 1) / 2
    black = {c: [] for c in scene.channels}
    last = {c: [] for c in scene.channels}
    for b, t, c in np.ndindex(3, scene.train_frames - 1, colours):
        if c in black:
            black[c].append((video[b, t + 1, :, :, c] ** 2).mean())
            last[c].append(((video[b, t + 1, :, :, c] - video[b, t, :, :, c]) ** 2).mean())
    names = {0: "_red", 2: "_blue"} if colours == 3 else {0: ""}
    wanted = {f"black_mse{names[c]}": np.mean(v) for c, v in black.items()}
    wanted |= {f"last_mse{names[c]}": np.mean(v) for c, v in last.items()}
    assert dataset.facts("val") == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"data.video.digit": 17}, "must fit data.video.canvas"),
        ({"data.video.canvas": 18}, "multiple of 4"),
        ({"data.source": "mnist5k", "data.video.digit": 5}, "28, 14, 7, 4, 2 or 1"),
        ({"data.video.canvas": 8}, "at least 11, the window of SSIM"),
        ({"data.padded_length": 1}, "data.padded_length=1 must be at least 2"),
        ({"train.select_metric": "mse"}, "train.select_metric"),
        ({"data.video.fast": -1.0}, "data.video.fast"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        load_config("video:smoke", options)


def test_digits_divide_28(tmp_path):
    for side in (4, 2, 1):
        load_config("video:smoke", {"data.source": "mnist5k", "data.video.digit": side})


def test_a_longer_video_is_of_the_full_size():
    with pytest.raises(ValueError, match="give video:600,full"):
        load_config("video:600")


def test_the_study_refuses_what_it_cannot_show(capsys):
    for config, words in (("video:gray", "colours=1 must be 3"), ("video:convlstm", "no alpha")):
        with pytest.raises(SystemExit):
            video_command([f"--config={config}"])
        assert words in capsys.readouterr().err


def test_a_convlstm_has_groups_and_gradients_and_no_knobs():
    cfg = load_config("video:convlstm,smoke")
    own = task.arguments_of(VideoPredictor, cfg.model.to_dict(), "video")
    make = lambda **changed: VideoPredictor(  # noqa: E731
        scene=SCENE, **{**own, **changed}, rngs=nnx.Rngs(0)
    )
    for changed in ({"alpha": 10.0}, {"beta": 1.0}, {"alpha_real": 0.0}):
        with pytest.raises(ValueError, match="has no modes and no filter"):
            make(**changed)
    with pytest.raises(ValueError, match="ConvLSTM: window must be odd"):
        make(window=2)
    graphdef, params = nnx.split(nnx.eval_shape(make))
    names, _ = assign(nnx.to_pure_dict(params), groups_from(cfg.optim.groups.to_dict()))
    assert set(jax.tree.leaves(names)) == {"norm", "rest"}
    batch = {
        "inputs": jax.ShapeDtypeStruct((2, 2, 7, 7), jnp.uint8),
        "places": jax.ShapeDtypeStruct((2, 2, 9, 2), jnp.int16),
    }

    def loss(params, batch):
        return task.train_sums(nnx.merge(graphdef, params), batch, None)["loss"]

    jax.eval_shape(jax.grad(loss), params, batch)


@pytest.mark.parametrize("beta", [None, 1.0])
def test_a_filter_leaves_no_roll_out_to_measure(beta):
    own = {"scene": SCENE, **SMALL, "beta": beta, "learn_beta": False, "rngs": nnx.Rngs(0)}
    model = VideoPredictor(**own)
    batch = {"inputs": jnp.zeros((2, 2, 7, 7), jnp.uint8), "places": jnp.zeros((2, 2, 9, 2), int)}
    sums = jax.eval_shape(lambda: task.eval_sums(model, batch))
    forced = {"loss", "count", "forced_mse", "forced_mse_red", "forced_mse_blue"}
    rolled = {"mse", "mse_red", "mse_blue", "psnr", "ssim"}
    assert sums.keys() == (forced if beta else forced | rolled)
    shown = dict.fromkeys(sums.keys() | {"forced_ratio"} | (set() if beta else {"ratio"}), 1.0)
    row = [make({"mean": shown, "seeds": {"0": shown}}) for make in [*COLUMNS.values()][2:]]
    assert [cell == "-" for cell in row] == [False] * 3 + [beta is not None] * 5


def test_ssim_by_scipy():
    rng = np.random.default_rng(2)
    x = rng.uniform(-1, 1, (2, 3, 16, 17, 3))
    y = np.clip(x + rng.normal(0, 0.3, x.shape), -1, 1)
    found = task.ssim(jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32))

    def blurred(image):  # radius 5 is 3.5 standard deviations
        return ndimage.gaussian_filter(image, 1.5, truncate=3.5)[5:-5, 5:-5]

    for b, t in np.ndindex(2, 3):
        values = []
        for c in range(3):
            p, q = x[b, t, :, :, c], y[b, t, :, :, c]
            mp, mq = blurred(p), blurred(q)
            cov = blurred(p * q) - mp * mq
            vp, vq = blurred(p * p) - mp**2, blurred(q * q) - mq**2
            c1, c2 = 0.02**2, 0.06**2
            top = (2 * mp * mq + c1) * (2 * cov + c2)
            values.append((top / ((mp**2 + mq**2 + c1) * (vp + vq + c2))).mean())
        np.testing.assert_allclose(found[b, t], np.mean(values), rtol=1e-4)


def test_ssim_by_scikit_image():
    metrics = pytest.importorskip("skimage.metrics", reason="pip install scikit-image")
    rng = np.random.default_rng(6)
    x = rng.uniform(-1, 1, (1, 2, 20, 24, 3))
    y = np.clip(x + rng.normal(0, 0.3, x.shape), -1, 1)
    found = task.ssim(jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32))
    own = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 2}
    for t in range(2):
        wanted = metrics.structural_similarity(x[0, t], y[0, t], channel_axis=2, **own)
        assert found[0, t] == pytest.approx(wanted, abs=1e-5)


def test_the_loss_by_a_loop_and_its_weights_over_time():
    e = np.random.default_rng(3).normal(size=(2, 5, 4, 3, 2)).astype(np.float32)
    wanted = [(0.5 * v**2 + 0.5 * abs(v)).sum(axis=(2, 3)).mean() for v in e.astype(float)]
    np.testing.assert_allclose(task.frame_loss(jnp.asarray(e)), wanted, rtol=1e-5)
    squares = [(0.9 * v**2 + 0.1 * abs(v)).sum(axis=(2, 3)).mean() for v in e.astype(float)]
    np.testing.assert_allclose(task.frame_loss(jnp.asarray(e), 0.1), squares, rtol=1e-5)
    gain = (1 + np.arange(6) / 10) ** 0.8
    spectrum = np.fft.rfft(e, 10, axis=1) * gain[None, :, None, None, None]
    weighed = np.fft.irfft(spectrum, 10, axis=1)[:, :5]
    wanted = [(0.5 * v**2 + 0.5 * abs(v)).sum(axis=(2, 3)).mean() for v in weighed]
    np.testing.assert_allclose(task.frame_loss(jnp.asarray(e), 0.5, 0.8), wanted, rtol=1e-5)


def parameters(cell, scene, d, n, width, depth, window=3):
    """The number of parameters, from the description of the network alone."""

    def conv(i, o, w=3, bias=1):
        return w * w * i * o + bias * o

    def residual(i, o):
        return 2 * i + 2 * o + conv(i, o) + conv(o, o) + (conv(i, o, 1, 0) if i != o else 0)

    c, a, b, e = scene.colours, width, 2 * width, 4 * width
    encoder = conv(c, a) + residual(a, a) + residual(a, b) + residual(b, e) + conv(e, d, 1)
    decoder = conv(d, a) + residual(a, e) + residual(e, b) + residual(b, a) + 2 * a + a * c + c
    over_time = {
        "convs5": 3 * n + 4 * window**2 * d * n,
        "s5": 3 * n + 4 * d * n,
        "convlstm": conv(2 * d, 4 * d, window),
    }[cell]
    return encoder + decoder + depth * (over_time + 2 * 2 * d + 2 * conv(d, d) + 2 * d)


@pytest.mark.parametrize("cell", ["convs5", "s5", "convlstm"])
@pytest.mark.parametrize("size", ["small", "full"])
def test_parameters_are_counted(cell, size):
    sizes = SMALL if size == "small" else {
        "d_model": 256, "d_state": 128, "width": 64, "groups": 32, "depth": 1
    }  # fmt: skip
    make = lambda: VideoPredictor(scene=SCENE, cell=cell, **sizes, rngs=nnx.Rngs(0))  # noqa: E731
    model = nnx.eval_shape(make)
    found = sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param)))
    width, d, n = sizes["width"], sizes["d_model"], sizes["d_state"]
    assert found == parameters(cell, SCENE, d, n, width, sizes["depth"])


@pytest.mark.parametrize("size, frames", [("reduced", "300"), ("full", "300"), ("full", "600")])
def test_cells_have_as_many_parameters(size, frames):
    counts = []
    for cell in ("convs5", "s5", "convlstm"):
        model = load_config(f"video:{cell},{size},{frames}").model
        about = cell, SCENE, model.d_model, model.d_state, model.video.width, model.depth
        counts.append(parameters(*about))
    assert max(counts) < 1.04 * min(counts)


@pytest.mark.parametrize("cell", ["convs5", "convlstm"])
def test_a_roll_out_feeds_back_its_clipped_predictions(cell):
    model = VideoPredictor(scene=SCENE, cell=cell, **SMALL, rngs=nnx.Rngs(0))
    # Predictions beyond white show that they are clipped.
    model.decoder.last.kernel[...] = 5 * model.decoder.last.kernel[...]
    frames = jnp.asarray(np.random.default_rng(4).uniform(-1, 1, (2, 4, 16, 16, 3)), jnp.float32)
    call, roll = (
        nnx.jit(VideoPredictor.__call__),
        nnx.jit(VideoPredictor.roll_out, static_argnums=2),
    )
    found = roll(model, frames, 3)
    assert found.shape == (2, 3, 16, 16, 3)
    for step in range(3):  # the whole video once more for each new frame
        new = jnp.clip(call(model, frames)[:, -1:], -1, 1)
        np.testing.assert_allclose(found[:, step], new[:, 0], atol=1e-4)
        frames = jnp.concatenate([frames, new], axis=1)


def test_predictions_know_no_later_frame_and_a_filter_refuses_a_roll_out():
    frames = np.random.default_rng(5).uniform(-1, 1, (1, 6, 16, 16, 3)).astype(np.float32)
    changed = frames.copy()
    changed[:, 4:] *= -1
    call = nnx.jit(VideoPredictor.__call__)
    model = VideoPredictor(scene=SCENE, **SMALL, rngs=nnx.Rngs(0))
    before, after = call(model, frames)[:, :4], call(model, changed)[:, :4]
    np.testing.assert_array_equal(before, after)
    model = VideoPredictor(scene=SCENE, **SMALL, beta=1.0, learn_beta=False, rngs=nnx.Rngs(0))
    assert not model.rolls_out
    with pytest.raises(NoStateForm):
        model.roll_out(frames, 2)


def test_errors_of_a_perfect_and_of_a_black_prediction():
    truth = np.full((1, 5, 12, 12, 3), -1, np.float32)
    truth[..., 0, :, 0] = 1  # a red line
    found = task.errors(SCENE, jnp.full_like(truth, -1), jnp.asarray(truth))
    assert found["mse_red"][0] == pytest.approx(1 / 12)
    assert found["mse_blue"][0] == 0
    assert found["mse"][0] == pytest.approx(1 / 36)
    sums = {"mse_red": 4.0, "mse_blue": 2.0, "forced_mse_red": 1, "forced_mse_blue": 4, "count": 2}

    class Data:
        scene = SCENE

    means = task.summary(sums, Data)
    assert (means["mse_red"], means["ratio"], means["forced_ratio"]) == (2, 2, 0.25)


def test_a_study_says_that_another_process_trains_a_run(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "run_sweep", lambda *_: True)
    cfg, job = load_config("video:smoke"), SimpleNamespace(folder=tmp_path)
    (run,) = runs.runs_of([setting(10, 0)], [0])
    lock = tmp_path / run.name / "LOCK"
    lock.parent.mkdir()
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match=r"trained by another process.* again when it is done"):
            runs.train(cfg, [setting(10, 0)], 1, job)
    with pytest.raises(ValueError, match=r"is unfinished.* look into its log.txt"):
        runs.train(cfg, [setting(10, 0)], 1, job)


@pytest.mark.parametrize("horizon", [1, 5])
def test_errors_are_drawn_of_any_horizon(horizon, tmp_path):
    scene, frames = SCENE._replace(horizon=horizon), np.zeros((horizon, 16, 16, 3))
    gain = np.ones((3, 4))
    error_TC, share_FC = np.ones((horizon, 3)), np.ones((horizon // 2, 3))
    shown = Shown(
        "a", scene, False, frames, frames, error_TC, share_FC, np.arange(1.0, 5), gain, gain
    )
    plots.save(tmp_path / "errors.png", errors_figure, scene, [shown])
    assert (tmp_path / "errors.png").stat().st_size > 1000


def test_the_story_trains_its_settings_and_shows_them(tmp_path, compile_once, monkeypatch):
    from ssm_jax.stories.video import run

    settings = [c for c in run.STORY if c["model.beta.init"] == 0][1:3]
    monkeypatch.setattr(run, "STORY", tuple(settings))
    folder = tmp_path / "study"
    speeds = ["--config.data.video.fast=0.3", "--config.data.video.slow=3"]  # the blue one is fast
    assert video_command(["--config=video:smoke", *speeds, f"--folder={folder}"]) == 0
    results = json.loads((folder / "results.json").read_text())
    assert [(cell["alpha"], cell["beta"]) for cell in results["cells"]] == [(1, 0), (10, 0)]
    rows = (folder / "table.md").read_text().splitlines()[2:]
    for cell, row in zip(results["cells"], rows, strict=True):
        fast, slow, ratio = map(float, row.split("|")[3:6])
        test = cell["mean"]
        assert (fast, slow) == pytest.approx(
            (1e3 * test["forced_mse_blue"], 1e3 * test["forced_mse_red"]), abs=0.01
        )
        assert ratio == pytest.approx(fast / slow, abs=0.01) and cell["mean"]["ratio"] > 0
    facts = json.loads(next(folder.glob("*/summary.json")).read_text())
    assert f"errs by {1e3 * facts['black_mse_blue']:.2f} and" in results["notes"]
    # A record holds the scene as a plain tuple, and a prediction of series is refused in a line.
    model = ssm_jax.load(next(folder.glob("*/record.json")).parent)
    assert isinstance(model.network.scene, Scene) and model.network.scene.channels == (0, 2)
    with pytest.raises(ValueError, match="a model of video predicts no series"):
        predict_file(model, tmp_path / "any.npz")
    with pytest.raises(ValueError, match="predicts no series"):
        model.predict(np.zeros((1, 4, 3)))
    for name in ("frames.png", "errors.png", "response.png", "videos.webp", "table.md"):
        assert (folder / name).stat().st_size > 100
