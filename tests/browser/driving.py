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
    """Run one more cell at the end of the notebook and give what it printed."""
    return page.evaluate(
        """async source => {
            const notebook = window.jupyterapp.shell.currentWidget.content;
            notebook.activeCellIndex = notebook.widgets.length - 1;
            await window.jupyterapp.commands.execute('notebook:insert-cell-below');
            const cell = notebook.activeCell;
            cell.model.sharedModel.setSource(source);
            await window.jupyterapp.commands.execute('notebook:run-cell');
            return cell.model.sharedModel.outputs.flatMap(output => output.text ?? []).join('').trim();
        }""",
        source,
    )


def ask(page, source):
    """What Python prints in the notebook's kernel, after all that the page has sent so far."""
    return page.evaluate(
        f"""async source => {{
            const future = {KERNEL}.requestExecute({{ code: source, store_history: false }});
            let said = '';
            future.onIOPub = message => {{
                said += message.content.text ?? message.content.traceback?.join('\\n') ?? '';
            }};
            await future.done;
            return said;
        }}""",
        source,
    )


def row(page, label):
    """The slider with this label, its box included."""
    return page.locator(f'.dl-slider:has(.dl-label:text-is("{label}"))').first


def handle_of(page, label):
    """The track of a slider, in sight."""
    handle = row(page, label).locator(".dl-track").first
    handle.scroll_into_view_if_needed()
    return handle


def type_into(page, label, text):
    """Type into the box beside a slider."""
    box = row(page, label).locator(".dl-number")
    box.fill(text)
    box.press("Enter")


def press(page, label, key, times=1):
    """Press a key, `times` times, on the slider with this label."""
    handle = handle_of(page, label)
    for _ in range(times):
        handle.press(key)


def drag(page, label, pixels, moves=10):
    """Drag the handle of a slider with the mouse, sideways."""
    handle_of(page, label)
    box = row(page, label).locator(".dl-thumb").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + pixels, y, steps=moves)
    page.mouse.up()


def readout(page, label):
    """The value that is written beside the slider."""
    return row(page, label).locator(".dl-number").input_value()


# The address of an image is another one with each new picture; a canvas is read.
_LOOK = """element => element.tagName === 'CANVAS' ? element.toDataURL()
                 : element.complete && element.naturalWidth > 0 ? element.src : null"""


def look(locator):
    """Something that differs whenever an image or canvas shows something else; waits for a first picture."""
    return locator.page.wait_for_function(
        f"element => ({_LOOK})(element)", arg=locator.element_handle()
    ).json_value()


def wait_for_change(locator, before):
    """Wait until an image or canvas shows something else than `before`."""
    page = locator.page
    page.wait_for_function(
        f"([element, before]) => {{ const now = ({_LOOK})(element);"
        " return now !== null && now !== before; }",
        arg=[locator.element_handle(), before],
        polling="raf",
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
