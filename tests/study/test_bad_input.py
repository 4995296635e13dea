"""Every bad input is answered by one line with field, rule and value, exit status 2, before anything starts."""

import json

import pytest

import results
import search_spaces
from study import cli, driver
from study.columns import setting_columns

OVERRIDES = {
    "unknown key": ("chaso.controls=1", ["chaso.controls", "did you mean 'chaos.controls'", "docs/space.md"]),
    "unknown key in a block": (
        "chaos.control=1",
        ["did you mean 'chaos.controls'? known: chaos.", ", chaos.fork_steps"],
    ),
    "unknown setting": ("num_step=5", ["num_step", "did you mean 'num_steps'", "docs/space.md"]),
    "unknown axis": ("axes.wdith=[1]", ["unknown axis 'wdith'", "did you mean 'width'"]),
    "lr text": ("lr=fast", ["lr", "number", "'fast'"]),
    "lr 0": ("lr=0", ["lr must be > 0", "got 0"]),
    "lr negative": ("lr=-0.1", ["lr must be > 0", "-0.1"]),
    "lr nan": ("lr=.nan", ["lr", "finite", "nan"]),
    "lr inf": ("lr=.inf", ["lr", "finite", "inf"]),
    "lr list": ("lr=[0.1]", ["lr", "axes.lr"]),
    "width fraction": ("width=2.5", ["width", "integer", "2.5"]),
    "width 0": ("width=0", ["width", "1 to", "got 0"]),
    "depth huge": ("depth=100000", ["depth", "1 to", "100000"]),
    "momentum 1": ("momentum=1", ["momentum must be < 1", "got 1"]),
    "weight decay": ("weight_decay=-1", ["weight_decay must be >= 0", "-1"]),
    "seeds 0": ("seeds=0", ["seeds", "got 0"]),
    "seeds text": ("seeds=many", ["seeds", "many"]),
    "seeds repeated": ("seeds=[1,1]", ["seeds", "[1, 1]"]),
    "fork at the end": ("chaos.fork_steps=[0,60]", ["chaos.fork_steps", "below num_steps (60", "got 60"]),
    "fork beyond": ("chaos.fork_steps=[70]", ["chaos.fork_steps", "got 70"]),
    "fork negative": ("chaos.fork_steps=[-1]", ["chaos.fork_steps", ">= 0", "-1"]),
    "fork twice": ("chaos.fork_steps=[5,5]", ["chaos.fork_steps", "5 twice"]),
    "fork text": ("chaos.fork_steps=[soon]", ["chaos.fork_steps", "'soon'"]),
    "magnitude 0": ("chaos.magnitudes=[0]", ["chaos.magnitudes", "> 0", "got 0"]),
    "magnitude negative": ("chaos.magnitudes=[-1e-3]", ["chaos.magnitudes", "> 0", "-0.001"]),
    "magnitude nan": ("chaos.magnitudes=[.nan]", ["chaos.magnitudes", "nan"]),
    "magnitude twice": ("chaos.magnitudes=[1e-2,0.01]", ["chaos.magnitudes", "0.01 twice"]),
    "no magnitudes": ("chaos.magnitudes=[]", ["chaos.magnitudes", "at least one"]),
    "no directions": ("chaos.num_directions=0", ["chaos.num_directions", ">= 1", "got 0"]),
    "controls": ("chaos.controls=-1", ["chaos.controls", ">= 0", "-1"]),
    "perturbation": ("chaos.perturbation=gausian", ["gausian", "did you mean 'gaussian'"]),
    "perturbation option": ("chaos.perturbation=ulp(momentum=true)", ["option of perturbation 'ulp'", "'momentum'"]),
    "perturbation norm": ("chaos.perturbation=gaussian(norm=innit)", ["norm of", "'innit'", "did you mean 'init'"]),
    "perturbation share": ("chaos.perturbation=sparse(fraction=1.5)", ["fraction of", "> 0 and <= 1", "'1.5'"]),
    "perturbation twice": ("chaos.perturbation=gaussian(norm=init, norm=init)", ["norm", "once", "twice"]),
    "perturbation unquoted": (
        "chaos.perturbation=[gaussian(norm=init, include=a)]",
        ["'gaussian(norm=init'", "quotes"],
    ),
    "perturbation word": ("chaos.perturbation=gaussian(init)", ["option=value", "'init'"]),
    "perturbation truth": (
        "chaos.perturbation={kind: gaussian, momentum: 1}",
        ["momentum of", "true or false", "got 1"],
    ),
    "perturbation without kind": ("chaos.perturbation={norm: init}", ["kind", "gaussian", "'norm': 'init'"]),
    "pattern": ("chaos.perturbation={kind: gaussian, include: [head.*, 5]}", ["include of", "patterns", "5"]),
    "pattern of one model": (
        "chaos.perturbation=gaussian(include=hidden.*)",
        ["hidden.*", "must match", "model 'cnn' (convs.*, norms.*, head.*)"],
    ),
    "pattern of nothing left": ("chaos.perturbation=gaussian(exclude=*)", ["gaussian(exclude=*)", "leaves none"]),
    "pattern of constants": (
        "chaos.perturbation=init_scaled(include=*.bias)",
        ["init_scaled(include=*.bias)", "leaves none"],
    ),
    "same perturbation": (
        "chaos.perturbation=['gaussian(include=*)', {kind: gaussian, norm: parameters}]",
        ["chaos.perturbation must not repeat", "'gaussian' twice"],
    ),
    "primary without magnitude": ("chaos.perturbation=[ulp, gaussian]", ["chaos.perturbation", "begin with", "'ulp'"]),
    "indicator": ("chaos.primary.indicator=barrier", ["barrier", "test_barrier"]),
    "threshold": ("chaos.primary.threshold=0", ["chaos.primary.threshold", "> 0", "got 0"]),
    "primary not run": ("chaos.primary.magnitude=1e-3", ["chaos.primary.magnitude", "0.01", "0.001"]),
    "past the end": ("chaos.measure_steps=['+30']", ["chaos.measure_steps", "'+30'", "step 70"]),
    "measure 0": ("chaos.measure_steps=[0]", ["chaos.measure_steps", "'0'"]),
    "empty axis": ("axes.lr=[]", ["axes.lr", "at least one"]),
    "axis repeats": ("axes.lr=[0.1,1e-1]", ["axes.lr", "0.1 twice"]),
    "log from 0": ("axes.lr={log: [0, 1], num: 3}", ["axes.lr.log", "0 < low < high", "[0, 1]"]),
    "log without num": ("axes.lr={log: [0.1, 1]}", ["axes.lr", "num"]),
    "axis not the schedule's": ("axes.gamma=[0.1,0.5]", ["gamma does not apply", "cosine"]),
    "model": ("model=resent", ["unknown model 'resent'", "known: cnn, custom, mlp"]),
    "data": ("data=minst1d", ["unknown data 'minst1d'", "did you mean 'mnist1d'"]),
    "schedule": ("schedule=cosin", ["unknown schedule 'cosin'", "cosine"]),
    "activation": ("activation=swish", ["unknown activation 'swish'", "gelu, relu, tanh"]),
    "norm_layer": ("norm_layer=bath", ["unknown norm_layer 'bath'", "batch"]),
    "batch": ("batch_size=601", ["batch_size must be <= num_train (600)", "601"]),
    "digits": ("num_train=1700", ["num_train + num_test must be <= 1797", "1700"]),
    "no equals sign": ("lr", ["--set", "KEY=VALUE", "'lr'"]),
    "unknown in primary": (
        "chaos.primary.treshold=1",
        ["chaos.primary.treshold", "did you mean 'chaos.primary.threshold'"],
    ),
    "axis text": ("axes.lr=fast", ["axes.lr", "a list", "'fast'"]),
    "axis value 0": ("axes.lr=[0.1,0]", ["lr must be > 0", "got 0"]),
    "axis reversed": ("axes.lr={range: [1, 0.1], num: 3}", ["axes.lr.range", "low < high", "[1, 0.1]"]),
    "axis num 1": ("axes.lr={log: [0.1, 1], num: 1}", ["axes.lr.num", ">= 2", "got 1"]),
    "depth 0": ("depth=0", ["depth", "1 to", "got 0"]),
    "width huge": ("width=100000000", ["width", "1 to", "100000000"]),
    "width text": ("width=wide", ["width", "integer", "'wide'"]),
    "seed negative": ("seeds=[-1]", ["seeds", ">= 0", "[-1]"]),
    "seeds true": ("seeds=true", ["seeds", "True"]),
    "steps 0": ("num_steps=0", ["num_steps must be >= 1", "got 0"]),
    "batch 0": ("batch_size=0", ["batch_size must be >= 1", "got 0"]),
    "weight decay nan": ("weight_decay=.nan", ["weight_decay", "finite", "nan"]),
    "fork steps text": ("chaos.fork_steps=soon", ["chaos.fork_steps", "'soon'"]),
    "fork fraction": ("chaos.fork_steps=[2.5]", ["chaos.fork_steps", "integer", "2.5"]),
    "magnitude text": ("chaos.magnitudes=[big]", ["chaos.magnitudes", "'big'"]),
    "magnitude inf": ("chaos.magnitudes=[.inf]", ["chaos.magnitudes", "inf"]),
    "control kinds": ("chaos.perturbation=order", ["unknown perturbation 'order'", "gaussian"]),
    "primary magnitude 0": ("chaos.primary.magnitude=0", ["chaos.primary.magnitude", "> 0", "got 0"]),
    "measure past the end": ("chaos.measure_steps=[61]", ["chaos.measure_steps", "num_steps (60", "'61'"]),
    "measure epochs past the end": ("chaos.measure_steps=[9ep]", ["chaos.measure_steps", "'9ep'", "step 162"]),
    "measure twice": ("chaos.measure_steps=[end,end]", ["chaos.measure_steps", "'end' twice"]),
    "measure word": ("chaos.measure_steps=[last]", ["chaos.measure_steps", "'end'", "'last'"]),
    "path points": ("chaos.path_points=2", ["chaos.path_points", ">= 3", "got 2"]),
    "train sample": ("chaos.train_sample=0", ["chaos.train_sample", ">= 1", "got 0"]),
    "empty seeds": ("seeds=[]", ["seeds", "[]"]),
    "no fork steps": ("chaos.fork_steps=[]", ["chaos.fork_steps", "at least one"]),
    "no measure steps": ("chaos.measure_steps=[]", ["chaos.measure_steps", "at least one"]),
    "axis the model lacks": (
        "axes.shortcut=[A,B]",
        ["shortcut does not apply to model 'mlp' (it does to 'resnet')", "'A'"],
    ),
    "setting the model lacks": ("shortcut=B", ["shortcut does not apply to model 'mlp'", "'B'"]),
    "axis the data lacks none of": ("axes.data=[mnist]", ["unknown data 'mnist'", "did you mean 'mnist1d'"]),
    "depth of a resnet": ("axes.model=[resnet]", ["depth of model 'resnet' must be 6n + 2 from 8", "got 2"]),
    "depth of a vgg": ("axes.model=[vgg]", ["depth of model 'vgg' must be one of 11, 13, 16, 19", "got 2"]),
    "augmentation": ("augmentation=flip", ["unknown augmentation 'flip'", "shift"]),
    "warm-up too long": ("warmup_steps=60", ["warmup_steps must be < num_steps (60)", "got 60"]),
    "warm-up negative": ("warmup_steps=-1", ["warmup_steps must be >= 0", "-1"]),
    "kernel": ("cone.kernel=ntk", ["unknown kernel 'ntk'", "full", "trace"]),
    "kernel twice": ("cone.kernel=[full,full]", ["cone.kernel", "'full' twice"]),
    "no kernels": ("cone.kernel=[]", ["cone.kernel", "at least one"]),
    "probe larger than the data": ("cone.probe_size=601", ["cone.probe_size must be <= num_train (600", "got 601"]),
    "probe of one": ("cone.probe_size=1", ["cone.probe_size", ">= 2", "got 1"]),
    "probe text": ("cone.probe_size=many", ["cone.probe_size", "'many'"]),
    "probe seed": ("cone.probe_seed=-1", ["cone.probe_seed", ">= 0", "-1"]),
    "sketch of few bins": ("cone.sketch=8", ["cone.sketch", "0 or an integer >= 16", "got 8"]),
    "sketch text": ("cone.sketch=true", ["cone.sketch", ">= 0", "True"]),
    "sketch too large": ("cone.sketch=10000000", ["cone.sketch", "<= 1,048,576"]),
    "children without sketch": ("cone.children=true", ["cone.children", "cone.sketch > 0", "4096"]),
    "children of no fork": (
        "cone={sketch: 64, children: [7]}",
        ["cone.children must be among chaos.fork_steps (0, ", "got 7"],
    ),
    "children word": ("cone={sketch: 64, children: all}", ["cone.children", "true, false or a list", "'all'"]),
    "kernel step past the end": ("cone.steps=[0,61]", ["cone.steps", "num_steps (60", "got 61"]),
    "kernel steps text": ("cone.steps=often", ["cone.steps", "num_log", "'often'"]),
    "kernel step negative": ("cone.steps=[-1]", ["cone.steps", ">= 0", "-1"]),
    "kernel step twice": ("cone.steps=[5,5]", ["cone.steps", "5 twice"]),
    "no kernel steps": ("cone.steps=[]", ["cone.steps", "at least one"]),
    "unknown in cone": ("cone.size=5", ["unknown key 'cone.size'", "cone.probe_size"]),
    "unknown in cone.steps": ("cone.steps={log: 5}", ["unknown key in cone.steps 'log'", "did you mean 'num_log'"]),
    "linear steps 0": ("cone.steps.num_linear=0", ["cone.steps.num_linear", ">= 1", "got 0"]),
    "indicator list": ("chaos.primary.indicator=[a]", ["unknown indicator ['a']", "test_barrier"]),
    "perturbation list": ("chaos.perturbation=[[a]]", ["unknown perturbation ['a']", "gaussian"]),
    "kernel list": ("cone.kernel=[[a]]", ["unknown kernel ['a']", "full"]),
    "seeds without end": ("seeds=100000000", ["seeds", "100,000", "100000000"]),
    "points without end": ("axes.lr={log: [1, 2], num: 100000000}", ["axes.lr.num", "10,000", "100000000"]),
    "directions without end": ("chaos.num_directions=100000000", ["chaos.num_directions", "10,000"]),
    "kernels without end": ("cone.steps.num_log=100000000", ["cone.steps.num_log", "10,000"]),
    "measured at step 0": ("chaos.measure_steps=[0.01ep]", ["chaos.measure_steps", "'0.01ep' = step 0"]),
    "no gpu asked for": ("device=cuda", ["device 'cuda' needs gpus_per_trial > 0"]),
    "optimizer": ("optimizer=adam", ["unknown optimizer 'adam'", "did you mean 'adamw'"]),
    "beta2 of sgd": ("beta2=0.9", ["beta2 does not apply to optimizer 'sgd' (it does to 'adamw')", "0.9"]),
    "clip negative": ("clip_norm=-1", ["clip_norm must be >= 0", "-1"]),
    "window under cosine": ("chaos.window=10", ["chaos.window", "schedule 'cosine'", "got 10", "'constant'"]),
    "window negative": ("chaos.window=-1", ["chaos.window", ">= 0", "-1"]),
    "gamma": ("gamma=0.5", ["gamma does not apply", "'cosine'", "0.5"]),
    "alignment": ("chaos.alignment=maybe", ["chaos.alignment must be true or false", "'maybe'"]),
    "sharpness": ("chaos.sharpness=1", ["chaos.sharpness must be true or false", "got 1"]),
    "growth past the end": ("growth.window=61", ["growth.window (61)", "num_steps (60", "0 + 61 = 61"]),
    "growth by default": ("growth.num_directions=1", ["growth.window (200)", "num_steps (60", "0 + 200 = 200"]),
    "no directions of growth": ("growth.num_directions=0", ["growth.num_directions", ">= 1", "got 0"]),
    "growth without end": ("growth.num_directions=100000000", ["growth.num_directions", "10,000"]),
    "one magnitude of growth": ("growth.magnitudes=1e-6", ["growth.magnitudes must be a list", "1e-06"]),
    "unknown in growth": ("growth.steps=5", ["unknown key 'growth.steps'", "growth.fork_steps"]),
    "switch past the end": ("switch.steps=[0,61]", ["switch.steps must not pass num_steps (60", "got 61"]),
    "switch twice": ("switch.steps=[5,5]", ["switch.steps", "5 twice"]),
    "switch step": ("switch.steps=5", ["switch.steps must be a list of steps or {num_log: n", "got 5"]),
    "switches without end": ("switch.steps.num_linear=100000000", ["switch.steps.num_linear", "10,000"]),
    "unknown in switch": ("switch.fork_steps=[5]", ["unknown key 'switch.fork_steps'", "switch.steps"]),
    "value no YAML": ("lr=[", ["--set lr", "not YAML"]),
    "no such date": ("lr=2024-13-45", ["--set lr", "not YAML", "month"]),
    "lr of 400 digits": (f"lr=1{'0' * 400}", ["lr must be a finite number"]),
    "magnitude of 400 digits": (f"chaos.magnitudes=[1{'0' * 400}]", ["chaos.magnitudes must be a number > 0"]),
    "axis up to 400 digits": (f"axes.lr={{log: [1, 1{'0' * 400}], num: 3}}", ["axes.lr.log must be two numbers"]),
    "5,000 digits": (f"num_steps=1{'0' * 5000}", ["--set num_steps", "digits"]),
    "steps without end": ("num_steps=100000001", ["num_steps must be <= 100,000,000", "got 100000001"]),
    "examples without end": ("num_train=10000001", ["num_train must be <= 10,000,000"]),
    "data seed beyond 32 bits": ("data_seed=4294967296", ["data_seed must be <= 4,294,967,295", "got 4294967296"]),
    "seed beyond 63 bits": ("seeds=[9223372036854775808]", ["seeds must be <= 9,223,372,036,854,775,807"]),
    "probe seed beyond 63 bits": ("cone.probe_seed=9223372036854775808", ["cone.probe_seed", "<= 9,223"]),
    "trials without end": ("seeds=60000", ["settings times seeds", "100,000", "2 settings and 60,000 seeds"]),
    "children without end": ("chaos.num_directions=5000", ["at most 10,000 children", "got 15,003"]),
    "measured twice in disguise": ("chaos.measure_steps=['1','01']", ["must not repeat", "'1' twice"]),
    "epochs twice in disguise": ("chaos.measure_steps=[1ep,01.0ep]", ["must not repeat", "'1ep' twice"]),
    "measured at 00": ("chaos.measure_steps=['00']", ["steps > 0", "'00'"]),
    "digits of another script": ("chaos.measure_steps=['٤']", ["chaos.measure_steps", "'٤'"]),
    "epochs of 400 digits": (f"chaos.measure_steps=[{'9' * 400}ep]", ["chaos.measure_steps must hold"]),
    "name": ("name=other", ["name", "use --name"]),
    "name misspelt": ("nmae=other", ["'nmae'", "use --name"]),
    "block no mapping": ("cone=5", ["cone must be a mapping", "got 5"]),
    "axes no mapping": ("axes=[lr]", ["axes must be a mapping", "['lr']"]),
}

FILES = {
    "empty": ("", ["must be a mapping", "nothing"]),
    "list": ("- 1", ["must be a mapping"]),
    "no YAML": ("name: [", ["line", "not YAML"]),
    "key twice": ("name: a\nname: b\n", ["line 2", "not YAML", 'duplicate key "name"']),
    "no name": ("base: {lr: 0.1}", ["name must be given"]),
    "name with slash": ("name: a/b", ["name must be of letters", "'a/b'"]),
    "unknown top": ("name: a\naxis: {}", ["unknown key 'axis'", "did you mean 'axes'"]),
    "unknown in chaos": ("name: a\nchaos: {forks: [1]}", ["unknown key in chaos 'forks'", "fork_steps"]),
    "unknown in chaos.primary": ("name: a\nchaos: {primary: {at: 1}}", ["key in chaos.primary 'at'", "threshold"]),
    "unknown in base": ("name: a\nbase: {num_step: 5}", ["unknown setting 'num_step'", "did you mean 'num_steps'"]),
    "unknown in settings": ("name: a\nsettings: [{widht: 5}]", ["unknown setting 'widht'", "did you mean 'width'"]),
    "unknown in axes": ("name: a\naxes: {lrr: [1]}", ["unknown axis 'lrr'", "did you mean 'lr'"]),
    "key twice inside": ("name: a\nbase: {lr: 0.1, lr: 0.2}", ["not YAML", "duplicate key"]),
    "base is a list": ("name: a\nbase: [lr]", ["base must be a mapping", "['lr']"]),
    "axes are a list": ("name: a\naxes: [lr]", ["axes must be a mapping", "['lr']"]),
    "settings are a mapping": ("name: a\nsettings: {lr: 0.1}", ["settings must be a list", "0.1"]),
    "no settings": ("name: a\nsettings: []", ["settings must be a list", "[]"]),
    "chaos is a list": ("name: a\nchaos: [1]", ["chaos must be a mapping", "[1]"]),
    "cone is a list": ("name: a\ncone: [full]", ["cone must be a mapping", "['full']"]),
    "unknown in cone": ("name: a\ncone: {kernels: full}", ["unknown key in cone 'kernels'", "did you mean 'kernel'"]),
    "primary is a word": ("name: a\nchaos: {primary: test_barrier}", ["chaos.primary", "'test_barrier'"]),
    "milestones of another script": (
        "name: a\nbase: {schedule: step, milestones: '٠.٥'}",
        ["milestones must be fractions", "'٠.٥'"],
    ),
    "name misspelt": ("nmae: a", ["unknown key 'nmae'", "did you mean 'name'"]),
    "name too long": (f"name: {'a' * 101}", ["at most 100", "begin with a letter or digit"]),
    "name is a number": ("name: 5", ["name must be of letters", "5"]),
    "name is a parent": ("name: ..", ["name must be of letters", "'..'"]),
    "measured before any fork": (
        "name: a\nchaos: {fork_steps: [30], measure_steps: [20]}",
        ["chaos.measure_steps must have one after a fork step", "first fork at 30", "got 20"],
    ),
    "window past the end": (
        "name: a\nbase: {schedule: constant, num_steps: 50}\nchaos: {fork_steps: [0, 45], window: 10}",
        ["chaos.measure_steps must not pass num_steps (50", "after the fork at 45 = step 55"],
    ),
    "window and measure steps": (
        "name: a\nchaos: {window: 10, measure_steps: [end]}",
        ["chaos must have window or measure_steps", "10", "['end']"],
    ),
    "growth late": (
        "name: a\nbase: {num_steps: 50}\ngrowth: {fork_steps: [0, 45], window: 10}",
        ["growth.fork_steps plus growth.window (10) must not pass num_steps (50", "got 45 + 10 = 55"],
    ),
    "growth windows": (
        "name: a\ngrowth: {num_directions: 9000}",
        ["growth must have at most 10,000 windows in a trial, got 81,000"],
    ),
    "burn-in": ("name: a\ngrowth: {window: 5, burn_in: 5}", ["growth.burn_in must be below growth.window (5)", "5"]),
    "growth magnitudes near": ("name: a\ngrowth: {magnitudes: [2e-6, 1e-6]}", ["growth.magnitudes", "tenfold apart"]),
    "growth magnitude tiny": ("name: a\ngrowth: {magnitudes: [1e-12, 1e-6]}", ["growth.magnitudes", ">= 1e-10"]),
    "holds itself": ("name: a\nbase: &b\n  self: *b", ["bad.yaml", "nor hold itself"]),
    "both": ("name: a\nsettings: [{lr: 0.1}]\naxes: {lr: [0.1, 0.2]}", ["lr", "settings[0]", "axes.lr"]),
    "same setting twice": ("name: a\nsettings: [{lr: 0.1}, {lr: 0.1}]", ["settings must differ", "0.1"]),
}


ARGUMENTS = [
    (
        ["run", "nowhere.yaml"],
        ["nowhere.yaml", f"presets: {', '.join(search_spaces.preset_names())}"],
    ),
    (["run", "."], ["a space must be a preset or a YAML file, got the folder '.'; presets: chaos_cone"]),
    (["run", "quikc"], ["no preset and no file is named 'quikc'; did you mean 'quick'? presets: "]),
    (["run", "tiny.yaml", "--workers", "0"], ["workers", ">= 1", "got 0"]),
    (["run", "tiny.yaml", "--workers", "two"], ["--workers", "'two'"]),
    (["run", "tiny.yaml", "--gpus-per-trial", "nan"], ["gpus_per_trial", "nan"]),
    (["run", "tiny.yaml", "--gpus-per-trial", "999"], ["gpus_per_trial", "999"]),
    (["run", "tiny.yaml", "--gpus-per-trial", "half"], ["--gpus-per-trial", "number or auto", "'half'"]),
    (["run", "tiny.yaml", "--cpus-per-trial", "0"], ["cpus_per_trial must be an integer >= 1", "got 0"]),
    (["run", "tiny.yaml", "--cpus-per-trial", "9999"], ["cpus_per_trial must be <= ", "processors", "got 9999"]),
    (["run", "tiny.yaml", "--set", "fold=3"], ["fold must be all, fork_step, cell or {children: n}", "got 3"]),
    (["run", "tiny.yaml", "--set", "fold=cel"], ["unknown fold 'cel'", "did you mean 'cell'"]),
    (["run", "tiny.yaml", "--set", "fold={children: 0}"], ["fold.children must be an integer >= 1", "got 0"]),
    (["run", "tiny.yaml", "--set", "fold={chunks: 2}"], ["fold must be", "{'chunks': 2}"]),
    (["search", "earliest", "--set", "fold=cell"], ["fold must be all in a space that is searched", "'cell'"]),
    (["run", "tiny.yaml", "--root", "tiny.yaml"], ["tiny.yaml", "write"]),
    (["run", "tiny.yaml", "--root", "tiny.yaml/deeper"], ["tiny.yaml"]),
    (["run", "tiny.yaml", "--name", "a/b"], ["name must be of letters", "'a/b'"]),
    (["run", "tiny.yaml", "--set", "=1"], ["--set", "'=1'"]),
    (["plan", "tiny.yaml", "--root", "tiny.yaml"], ["cannot write to", "tiny.yaml/tiny: Not a directory"]),
    (["run", f"{'a' * 300}.yaml"], ["aaa.yaml cannot be read", "too long"]),
    (["status", "a" * 300], ["no study at runs/aaa"]),
    (["run", "tiny.yaml", "--root", "a" * 300], ["cannot write to", "aaa/tiny", "too long"]),
    (["plan", "tiny.yaml", "--root", "a" * 300], ["cannot write to", "aaa/tiny", "too long"]),
    (["run", "tiny.yaml", "--address", ""], ["address must be host:port", "got ''"]),
    (["run", "tiny.yaml", "--address", "local"], ["address must be host:port", "got 'local'"]),
    (["run", "tiny.yaml", "--address", "127.0.0.1:65536"], ["port from 1 to 65535", "65536"]),
    (["plan", "tiny.yaml", "--set", "lr=0"], ["lr must be > 0", "got 0"]),
    (["run", "tiny.yaml", "--gpus-per-trial", "-1"], ["gpus_per_trial", ">= 0", "-1"]),
    (["locate", "nothing", "--magnitude", "big"], ["--magnitude", "'big'"]),
    (["run"], ["SPACE"]),
    (["rnu", "tiny.yaml"], ["rnu"]),
    (["run", "tiny.yaml", "--wrokers", "1"], ["--wrokers"]),
    (["locate", "nothing"], ["nothing"]),
    (["check", "nothing"], ["nothing"]),
]


CASES = {
    **{f"--set, {name}": (["run", "tiny.yaml", "--set", text], words) for name, (text, words) in OVERRIDES.items()},
    **{f"file, {name}": (text, words) for name, (text, words) in FILES.items()},
    **{" ".join(argv)[:80]: (argv, words) for argv, words in ARGUMENTS},
}


@pytest.mark.parametrize(("given", "words"), CASES.values(), ids=CASES)
def test_bad_input(answer, tmp_path, given, words):
    if isinstance(given, str):
        (tmp_path / "bad.yaml").write_text(given)
        given = ["run", "bad.yaml"]
    line = answer(*given)
    assert all(word in line for word in words), line
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("argument", ["chaos.control=1", "num_step=5", "zzz=1", "axes.wdith=[1]"])
def test_an_unknown_key_is_told_in_a_short_line(answer, argument):
    assert len(answer("run", "tiny.yaml", "--set", argument)) < 300


def test_plan_warns_of_what_run_refuses(answer, capsys):
    refused = answer("run", "tiny.yaml", "--set", "device=cuda").removeprefix("twophase: ")
    assert cli.main(["plan", "tiny.yaml", "--set", "device=cuda", "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == f"twophase: run would be refused on this machine: {refused}"
    assert json.loads(out)["trials"] == 4


def test_a_root_that_is_named_goes_before_the_current_folder(answer, tmp_path, capsys):
    for root in ("here", "runs", "there"):
        made = "elsewhere" if root == "here" else "tiny"
        results.create(tmp_path / root / "tiny", study=made, setting_columns=setting_columns())
    (tmp_path / "here" / "tiny").rename(tmp_path / "tiny")
    assert cli.main(["status", "tiny"]) == 0
    assert "study elsewhere" in capsys.readouterr().out
    for argv in (["tiny", "--root", "there"], ["tiny", "--root", "runs"], ["there/tiny", "--root", "runs"]):
        assert cli.main(["status", *argv]) == 0
        assert "study tiny" in capsys.readouterr().out
    assert "no study at nowhere/tiny" in answer("status", "tiny", "--root", "nowhere")


def make_study(folder):
    return results.create(folder, study="tiny", setting_columns=setting_columns())


def test_a_second_driver(answer, tmp_path):
    make_study(tmp_path / "runs" / "tiny")
    with results.Lease.acquire(tmp_path / "runs" / "tiny"):
        line = answer("run", "tiny.yaml")
    assert "pid" in line


def test_a_stray_package_in_the_driver_s_folder(answer, tmp_path):
    (tmp_path / "study.py").write_text("")
    line = answer("run", "tiny.yaml")
    assert str(tmp_path / "study.py") in line


def test_another_primary(answer, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(driver, "_run_plan", lambda *_: None)
    assert cli.main(["run", "tiny.yaml"]) == 0
    capsys.readouterr()
    line = answer("run", "tiny.yaml", "--set", "chaos.primary.threshold=0.1")
    assert "chaos.primary.threshold was pinned to 0.05" in line
    assert "0.1" in line
    line = answer("run", "tiny.yaml", "--set", "chaos.primary.indicator=disagreement")
    assert "chaos.primary.indicator was pinned to test_barrier" in line
    assert "disagreement" in line
    line = answer("run", "tiny.yaml", "--set", "chaos.magnitudes=[1e-3]", "--set", "chaos.primary.magnitude=1e-3")
    assert "chaos.primary.magnitude was pinned to 0.01" in line
    assert "--name" in line


def test_an_unnamed_primary_magnitude_is_the_largest_of_the_first_run(answer, monkeypatch, capsys):
    """Larger ones of a later run, or of another kind, leave the headline where it was."""
    monkeypatch.setattr(driver, "_run_plan", lambda *_: None)
    assert cli.main(["run", "tiny.yaml"]) == 0
    larger = ["--set", "chaos.magnitudes=[1]", "--set", "chaos.perturbation=[gaussian_absolute]"]
    assert cli.main(["run", "tiny.yaml", *larger]) == 0
    assert "gaussian at magnitude 0.01, at end" in capsys.readouterr().out
    named = ("--set", "chaos.magnitudes=[1]", "--set", "chaos.primary.magnitude=1")
    assert "chaos.primary.magnitude was pinned to 0.01" in answer("run", "tiny.yaml", *named)


def test_a_file_that_is_no_text(answer, tmp_path):
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    assert "bytes.yaml" in answer("run", "bytes.yaml")


def test_a_study_without_rows(answer, tmp_path):
    make_study(tmp_path / "runs" / "tiny")
    assert "no chaos rows" in answer("locate", "tiny")
