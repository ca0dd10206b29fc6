"""What the network does between two bytes: leaves that are over end, calls return, the next leaves begin."""

from __future__ import annotations

from minillm_serve.guided.automaton.forbidden import Forbidden
from minillm_serve.guided.automaton.leaf_states import ByteLeaf, without_ends
from minillm_serve.guided.automaton.positions import Arrived, Frame, LeafKey, Thread
from minillm_serve.guided.automaton.text_states import TextLeaf, without_text_ends
from minillm_serve.guided.grammar.network import RETURN, Arc, Call, Jump, Network, Read, Text

MAX_THREADS = 4_096  # of one position; the last that come are dropped, which is sound: each can be completed
MAX_LOOKAHEAD = 64  # states that are looked at to see whether unique arcs have left a way
MAX_CLOSED = 16  # an arc with more targets is never narrowed
MAX_KNOWN = 1 << 14

LeafAutomaton = ByteLeaf | TextLeaf


class Closure:
    """Follows the arcs of ``network`` that read nothing, and moves threads through their leaves."""

    def __init__(self, network: Network, alphabet: frozenset[int]):
        self.network, self.alphabet = network, alphabet
        self._leaves: dict[LeafKey, LeafAutomaton] = {}
        self._viable: dict[tuple[int, Frame], bool] = {}

    def leaf(self, key: LeafKey) -> LeafAutomaton:
        """The automaton of a leaf, built when first reached."""
        found = self._leaves.get(key)
        if found is None:
            leaf = self.network.leaves[key.number]
            if isinstance(leaf, Text):
                found = TextLeaf(without_text_ends(leaf, key.closed) if key.closed else leaf, self.alphabet)
            else:
                found = ByteLeaf(without_ends(leaf, key.closed) if key.closed else leaf, self.alphabet)
            self._leaves[key] = found
        return found

    def forbidden(self, leaf: LeafAutomaton, unique: bool, frame: Frame) -> Forbidden:
        """The texts that a leaf may not read in a frame."""
        if isinstance(leaf, TextLeaf):
            always = (leaf.excluded,) if leaf.leaf.excluded else ()
            return (*always, frame.words(str)) if unique else always
        return (frame.words(bytes),) if unique else ()

    def move(self, thread: Thread, byte: int, arrived: Arrived) -> None:
        """Add what one more byte makes of a thread: it goes on, and its leaf may be over."""
        leaf = self.leaf(thread.leaf)
        forbidden = self.forbidden(leaf, thread.unique, thread.frame)
        state = leaf.step(thread.state, byte, forbidden)
        if state is None:
            return
        thread = thread._replace(state=state)
        over = self._arrive(thread, leaf, forbidden, arrived)
        if over is not None:
            self.open(*over, arrived)

    def open(self, state: int, frame: Frame, arrived: Arrived) -> None:
        """Follow what reads nothing until a leaf stands on top of every stack, or the stack is empty."""
        pending: list[tuple[int | Read, Frame]] = [(state, frame)]
        while pending and len(arrived.threads) <= MAX_THREADS:
            item, frame = pending.pop()
            if isinstance(item, Read):
                over = self._begin(item, frame, arrived)
                pending += [] if over is None else [over]
            elif item == RETURN and frame.parent is None:
                arrived.complete = True
            elif item == RETURN:
                pending.append((frame.then, frame.parent))  # type: ignore[arg-type]
            elif (item, frame) not in arrived.seen:
                arrived.seen.add((item, frame))
                pending += [way for arc in reversed(self.network.expand(item)) for way in self._follow(arc, frame)]

    def over(self, thread: Thread, leaf: LeafAutomaton, tag: int) -> tuple[int, Frame] | None:
        """(state, frame) when the thread's leaf is over; None if what it has read leaves no way on."""
        target = thread.targets[tag]
        if not thread.unique:
            return target, thread.frame
        frame = thread.frame.taking(leaf.text(thread.state))
        return (target, frame) if self.is_viable(target, frame) else None

    def _arrive(
        self, thread: Thread, leaf: LeafAutomaton, forbidden: Forbidden, arrived: Arrived
    ) -> tuple[int, Frame] | None:
        """The thread has come to its state: it is kept if it goes on; what comes next if its leaf may be over."""
        if leaf.goes_on(thread.state, forbidden):
            arrived.threads[_forgetful(thread, leaf, forbidden)] = None
        tag = leaf.end(thread.state, forbidden)
        return None if tag < 0 else self.over(thread, leaf, tag)

    def _follow(self, arc: Arc, frame: Frame) -> list[tuple[int | Read, Frame]]:
        """Where an arc leads, if the stack may still grow as high as it needs."""
        if frame.depth + arc.height > self.network.max_depth:
            return []
        match arc:
            case Read():
                return [(arc, frame)]
            case Jump(target):
                return [(target, frame)]
            case Call(entry, then) if then == RETURN:
                return [(entry, Frame(frame.then, frozenset(), frame.parent))]
            case Call(entry, then):
                return [(entry, Frame(then, frozenset(), frame))] if self.is_viable(then, frame) else []

    def _begin(self, arc: Read, frame: Frame, arrived: Arrived) -> tuple[int, Frame] | None:
        """A leaf begins: its thread; and what comes after it, if the empty text is one of the leaf's."""
        closed: tuple[int, ...] = ()
        if not arc.unique and frame.taken and len(arc.targets) <= MAX_CLOSED:
            closed = tuple(tag for tag, target in enumerate(arc.targets) if not self.is_viable(target, frame))
            if len(closed) == len(arc.targets):
                return None
        key = LeafKey(arc.leaf, closed)
        leaf = self.leaf(key)
        forbidden = self.forbidden(leaf, arc.unique, frame)
        state = leaf.start(arc.unique, forbidden)
        if state is None:
            return None
        return self._arrive(Thread(key, state, arc.targets, arc.unique, frame), leaf, forbidden, arrived)

    # -- unique arcs can run out of texts ------------------------------------------------------------------------

    def is_viable(self, state: int, frame: Frame) -> bool:
        """Is there a way from ``state`` to the end of the frame, or to a unique arc with a text left?

        The network promises one in a fresh frame; only texts already taken can close it. So the comma behind the last
        member that an object can have is not written.
        """
        if state == RETURN or not frame.taken:
            return True
        key = (state, frame)
        if key not in self._viable:
            if len(self._viable) >= MAX_KNOWN:
                self._viable.clear()
            self._viable[key] = self.look_ahead(state, frame)[0]
        return self._viable[key]

    def look_ahead(self, state: int, frame: Frame) -> tuple[bool, bool]:
        """(is there a way, was any unique arc asked): without the latter, the frame's texts make no difference."""
        ahead, asked = [state], False
        for place, state in enumerate(ahead):
            if state == RETURN or place > MAX_LOOKAHEAD:
                return True, asked
            for arc in self.network.expand(state):
                if frame.depth + arc.height > self.network.max_depth:
                    continue
                if isinstance(arc, Read) and arc.unique:
                    asked = True
                    leaf = self.leaf(LeafKey(arc.leaf))
                    if leaf.start(True, self.forbidden(leaf, True, frame)) is not None:
                        return True, asked
                elif isinstance(arc, Read) and len(arc.targets) > MAX_CLOSED:
                    return True, asked
                else:
                    ahead += [target for target in dict.fromkeys(_behind(arc)) if target not in ahead]
        return False, asked


def _behind(arc: Arc) -> tuple[int, ...]:
    """The states of the same frame to which an arc leads."""
    if isinstance(arc, Read):
        return arc.targets
    return (arc.then,) if isinstance(arc, Call) else (arc.target,)


def _forgetful(thread: Thread, leaf: LeafAutomaton, forbidden: Forbidden) -> Thread:
    """Without the text, when that no longer matters."""
    if not isinstance(leaf, TextLeaf) or thread.unique or leaf.may_meet(thread.state, forbidden):
        return thread
    return thread._replace(state=thread.state._replace(text=None))
