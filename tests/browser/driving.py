"""What a user does in the page, and what a user sees."""

SESSION = "window.jupyterapp.shell.currentWidget?.context?.sessionContext"
KERNEL = f"{SESSION}?.session?.kernel"
CODE_CELLS = "window.jupyterapp.shell.currentWidget.content.widgets.filter(c => c.model.type === 'code')"


def run_all_cells(page):
    """Run the notebook that the page shows, as JupyterLab's menu does, and wait; no cell may fail."""
    page.wait_for_function(f"() => window.jupyterapp !== undefined && {KERNEL}?.status === 'idle'")
    page.locator(".jp-Notebook .jp-Cell").first.wait_for()
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
    page.wait_for_function(
        f"""() => {{
            const cells = {CODE_CELLS}.map(c => c.model);
            const failed = cells.some(c => c.sharedModel.outputs.some(o => o.output_type === 'error'));
            const done = cells.every(c => c.executionCount !== null && c.executionState !== 'running');
            return failed || (done && {KERNEL}.status === 'idle');
        }}"""
    )
    errors = page.evaluate(
        f"""() => {CODE_CELLS}.flatMap(c => c.model.sharedModel.outputs)
                .filter(o => o.output_type === 'error').map(o => `${{o.ename}}: ${{o.evalue}}`)"""
    )
    assert not errors


def run_cell(page, source):
    """Run one more cell at the end of the notebook and give its text."""
    page.evaluate(
        """async source => {
            const notebook = window.jupyterapp.shell.currentWidget.content;
            notebook.activeCellIndex = notebook.widgets.length - 1;
            await window.jupyterapp.commands.execute('notebook:insert-cell-below');
            notebook.activeCell.model.sharedModel.setSource(source);
            await window.jupyterapp.commands.execute('notebook:run-cell');
        }""",
        source,
    )
    return page.locator(".jp-Cell").last.locator(".jp-OutputArea-output").inner_text()


def slider(page, label):
    """The handle of the slider with this label."""
    row = page.locator(".widget-slider, .widget-selection-slider", has=page.get_by_text(label, exact=True))
    return row.locator(".noUi-handle").first


def press(page, label, key, times=1):
    """Press a key, `times` times, on the slider with this label."""
    handle = slider(page, label)
    handle.scroll_into_view_if_needed()
    for _ in range(times):
        handle.press(key)


def drag(page, label, pixels, moves=10):
    """Drag the handle of a slider with the mouse, sideways."""
    handle = slider(page, label)
    handle.scroll_into_view_if_needed()
    box = handle.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + pixels, y, steps=moves)
    page.mouse.up()


def readout(page, label):
    """The value that is written beside the slider."""
    row = page.locator(".widget-slider, .widget-selection-slider", has=page.get_by_text(label, exact=True))
    return row.locator(".widget-readout").first.inner_text()


# The address of an image is another one with each new picture; a canvas is read.
_LOOK = """element => element.tagName === 'CANVAS' ? element.toDataURL()
                 : element.complete && element.naturalWidth > 0 ? element.src : null"""


def look(locator):
    """Something that differs whenever an image or canvas shows something else."""
    return locator.evaluate(_LOOK)


def wait_for_change(locator, before):
    """Wait until an image or canvas shows something else than `before`; the milliseconds it took."""
    return locator.evaluate(
        f"""(element, before) => new Promise(resolve => {{
            const look = {_LOOK}, start = performance.now();
            const check = () => {{
                const now = look(element);
                if (now !== null && now !== before) resolve(performance.now() - start);
                else requestAnimationFrame(check);
            }};
            check();
        }})""",
        before,
    )


def key_to_pixels(page, label, key, picture):
    """Milliseconds from a key press on a slider until an image or canvas shows something else."""
    picture.evaluate(
        f"""element => {{
            const look = {_LOOK}, before = look(element);
            window.changed = new Promise(resolve => window.addEventListener('keydown', event => {{
                const check = () => {{
                    const now = look(element);
                    if (now !== null && now !== before) resolve(performance.now() - event.timeStamp);
                    else requestAnimationFrame(check);
                }};
                check();
            }}, {{ once: true, capture: true }}));
        }}"""
    )
    press(page, label, key)
    return picture.page.evaluate("() => window.changed")
