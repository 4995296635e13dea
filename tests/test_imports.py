"""Imports point one way, study -> search_spaces -> twophase, study -> results; imports inside functions count."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "study": {"search_spaces", "results", "twophase"},
    "search_spaces": {"twophase"},
    "results": set(),
    "twophase": set(),
}
COMPUTED = "<computed>"  # a name that is only known when it runs: `study`, which may import all of ours, may do that
USERS = Path("twophase/models/user_module.py")  # and the module that a user names is imported here, and nowhere else
ONLY_STUDY = {"ray", "optuna", "matplotlib", COMPUTED}
MODULES = sorted(path.relative_to(ROOT) for package in MAY_IMPORT for path in (ROOT / package).rglob("*.py"))
every_module = pytest.mark.parametrize("module", MODULES, ids=str)


def imported(tree):
    """Dotted names of all that a module imports, wherever it does."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield node.module
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in {"import_module", "__import__", "resolve_name"}:
                yield node.args[0].value if isinstance(node.args[0], ast.Constant) else COMPUTED


def packages_of(source):
    return {name.partition(".")[0] for name in imported(ast.parse(source))}


def broken_rules(module, source):
    """What a module at a path imports that it may not."""
    package, seen = module.parts[0], packages_of(source)
    broken = {name for name in seen & set(MAY_IMPORT) if name != package and name not in MAY_IMPORT[package]}
    if package != "study":
        broken |= seen & (ONLY_STUDY - {COMPUTED} if module == USERS else ONLY_STUDY)
    if package != "results" and module.parts[:2] != ("twophase", "data"):
        broken |= seen & {"pyarrow"}
    return broken


def test_the_rules_see_what_they_forbid():
    assert len(MODULES) > 30
    inside = "def f():\n    import ray.tune\n    from study import launch\n"
    assert broken_rules(Path("twophase/a.py"), inside) == {"ray", "study"}
    assert broken_rules(Path("study/a.py"), inside) == set()
    assert broken_rules(Path("results/a.py"), "import twophase.config, pyarrow") == {"twophase"}
    assert broken_rules(Path("search_spaces/a.py"), "import results\nimport twophase") == {"results"}
    assert broken_rules(Path("twophase/data/a.py"), "import pyarrow.parquet") == set()
    assert broken_rules(Path("study/a.py"), "import pyarrow.parquet") == {"pyarrow"}
    assert broken_rules(Path("twophase/a.py"), "import_module('optuna')") == {"optuna"}
    assert broken_rules(Path("results/a.py"), "import_module(name)") == {COMPUTED}
    assert broken_rules(Path("twophase/a.py"), "pkgutil.resolve_name(name)") == {COMPUTED}
    assert broken_rules(USERS, "pkgutil.resolve_name(name)\nimport ray") == {"ray"}


@every_module
def test_imports_point_one_way(module):
    assert broken_rules(module, (ROOT / module).read_text()) == set()


@every_module
def test_no_name_from_another_packages_inside(module):
    """Underscored modules and names stay in their package."""
    for node in ast.walk(ast.parse((ROOT / module).read_text())):
        if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] in MAY_IMPORT:
            inside = node.module.partition(".")[0] == module.parts[0]
            private = [alias.name for alias in node.names if alias.name.startswith("_") and alias.name[:2] != "__"]
            assert inside or not private, private


def only_hands_on(statement):
    """An import, the docstring, `__all__`, `__version__`, or a table written out."""
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return True
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant) and isinstance(statement.value.value, str)
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    if not isinstance(statement, ast.Assign | ast.AnnAssign) or not isinstance(targets[0], ast.Name):
        return False
    if targets[0].id == "__all__":
        return isinstance(statement.value, ast.List)
    if targets[0].id == "__version__":
        return isinstance(statement.value, ast.Constant)
    table = statement.value
    return isinstance(table, ast.Dict) and all(
        isinstance(key, ast.Constant) and isinstance(value, ast.Name | ast.Attribute | ast.Constant)
        for key, value in zip(table.keys, table.values, strict=True)
    )


@pytest.mark.parametrize("module", [m for m in MODULES if m.name == "__init__.py"], ids=str)
def test_package_files_hand_names_on_and_compute_nothing(module):
    tree = ast.parse((ROOT / module).read_text())
    assert ast.get_docstring(tree)
    assert [ast.unparse(statement) for statement in tree.body if not only_hands_on(statement)] == []


def test_what_counts_as_computing():
    fine = "'''Doc.'''\nimport a\nfrom a import b\nT: dict[str, int] = {'b': b, 'c': a.c}\n"
    fine += "__all__ = ['T']\n__version__ = '1'"
    assert all(map(only_hands_on, ast.parse(fine).body))
    for bad in ("x = f()", "T = {'a': f()}", "def f(): pass", "f()", "for i in x: pass", "__all__ = f()", "x = 1"):
        assert not any(map(only_hands_on, ast.parse(bad).body)), bad


@every_module
def test_modules_import_each_other_without_a_cycle(module):
    """Following imports among our own modules never leads back."""
    names = {path.with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__"): path for path in MODULES}

    def next_of(name):
        tree = ast.parse((ROOT / names[name]).read_text())
        for node in tree.body:  # at import time only
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names if alias.name in names)
            elif isinstance(node, ast.ImportFrom) and node.module in names:
                inner = [f"{node.module}.{alias.name}" for alias in node.names]
                submodules = [full for full in inner if full in names]
                yield from submodules
                if len(submodules) < len(inner):
                    yield node.module

    start = next(name for name, path in names.items() if path == module)
    waiting, seen = list(next_of(start)), set()
    while waiting:
        name = waiting.pop()
        assert name != start, f"{start} imports itself by way of {sorted(seen)}"
        if name not in seen:
            seen.add(name)
            waiting += next_of(name)
