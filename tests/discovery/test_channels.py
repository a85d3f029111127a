"""Sending, to real servers: what arrives, what is refused, and what is tried again."""

import hashlib
import hmac
import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from config import outgoing
from discovery import channels, messages
from discovery.channels import Message, SendFailed
from tests.discovery import receivers

MESSAGE = Message(
    "0f8fad5b-d9cb-469f-a165-70867728950e",
    "2 openings: Dinner",
    "Bistro Nord, Berlin\nFri 2026-02-20 19:30, for 2",
    {"type": "drops", "drops": [{"id": 1}]},
)
SECRET = "a-secret-of-the-watch"


@pytest.fixture(autouse=True)
def _limits(settings):
    settings.OUTGOING_ALLOWED_HOSTS = ["127.0.0.1"]
    settings.OUTGOING_TIMEOUT_SECONDS = 1


@pytest.fixture
def hook():
    with receivers.web() as found:
        yield found


@pytest.fixture
def box(settings):
    with receivers.post() as found:
        settings.EMAIL_URL = f"smtp://127.0.0.1:{found.port}"
        settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
        settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", found.port
        settings.EMAIL_TIMEOUT = 1
        settings.DEFAULT_FROM_EMAIL = "Spyglass <openings@spyglass.example>"
        yield found


def failure(send, *args) -> SendFailed:
    with pytest.raises(SendFailed) as caught:
        send(*args)
    return caught.value


def test_a_webhook_is_signed_json_with_a_name(hook):
    before = int(time.time())
    channels.send(channel="webhook", target=hook.url, secret=SECRET, message=MESSAGE)
    [call] = hook.calls
    assert call.path == "/hook"
    assert call.data == MESSAGE.data
    assert call.headers["Content-Type"] == "application/json"
    assert call.headers["Idempotency-Key"] == MESSAGE.message_id
    assert call.headers["User-Agent"].startswith("Spyglass/")
    fields = dict(part.split("=") for part in call.headers["Spyglass-Signature"].split(","))
    signed = f"{fields['t']}.".encode() + call.body
    assert fields["v1"] == hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
    assert before <= int(fields["t"]) <= time.time()


@pytest.mark.parametrize(
    ("status", "permanent"),
    [
        (301, True), (302, True), (307, True), (400, True), (401, True), (404, True), (410, True),
        (408, False), (425, False), (429, False), (500, False), (502, False), (503, False),
    ],
)  # fmt: skip
def test_what_an_answer_means(hook, status, permanent):
    hook.answer(status, b"not  today\x00", Location="http://127.0.0.1:1/")
    failed = failure(channels.send_webhook, hook.url, SECRET, MESSAGE)
    assert failed.permanent is permanent
    assert failed.reason == f"{status} not  today"
    assert failed.retry_after is None
    assert len(hook.calls) == 1  # redirects are not followed


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_any_2xx_is_a_delivery(hook, status):
    hook.answer(status)
    channels.send_webhook(hook.url, SECRET, MESSAGE)


def test_retry_after_is_believed_within_bounds(hook):
    def asked(text):
        hook.answer(429, Retry_After=text)
        return failure(channels.send_webhook, hook.url, SECRET, MESSAGE).retry_after

    assert asked("7") == 7
    assert asked("999999999") == channels.LONGEST_RETRY_AFTER
    assert asked("soon") is None
    assert asked("-5") is None
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert 50 < asked(date) <= 60
    assert asked("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    unzoned = datetime.now(UTC) + timedelta(seconds=60)
    assert 50 < asked(f"{unzoned:%a, %d %b %Y %H:%M:%S} -0000") <= 60  # UTC, wherever we are


def test_an_answer_that_does_not_come_is_given_up(hook):
    hook.held.clear()
    started = time.monotonic()
    failed = failure(channels.send_webhook, hook.url, SECRET, MESSAGE)
    assert time.monotonic() - started < 3
    assert (failed.permanent, failed.reason) == (False, "No answer within 1 s.")


def test_of_a_large_answer_little_is_read(hook):
    hook.answer(500, b"x" * 20_000_000)
    started = time.monotonic()
    failed = failure(channels.send_webhook, hook.url, SECRET, MESSAGE)
    assert time.monotonic() - started < 3
    assert len(failed.reason) < 300


def test_nobody_there(settings):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    failed = failure(channels.send_webhook, f"http://127.0.0.1:{port}/", SECRET, MESSAGE)
    assert not failed.permanent
    assert failed.reason


def test_a_private_target_is_never_connected_to(hook, settings, monkeypatch):
    settings.OUTGOING_ALLOWED_HOSTS = []
    failed = failure(channels.send_webhook, hook.url, SECRET, MESSAGE)
    assert failed.permanent
    assert "private" in failed.reason

    # A name that was public when it was checked, and is not when it is connected to.
    answers = iter(["1.1.1.1"])
    real = outgoing._plain_getaddrinfo

    def rebinding(host, port, *rest, **options):
        if host == "rebound.example":
            host = next(answers, "127.0.0.1")
        return real(host, port, *rest, **options)

    monkeypatch.setattr(outgoing, "_plain_getaddrinfo", rebinding)
    url = hook.url.replace("127.0.0.1", "rebound.example")
    failed = failure(channels.send_webhook, url, SECRET, MESSAGE)
    assert failed.permanent
    assert "private" in failed.reason
    assert hook.calls == []


def test_a_host_that_cannot_be_found_is_tried_again():
    failed = failure(channels.send_webhook, "http://nowhere.invalid/", SECRET, MESSAGE)
    assert not failed.permanent


def test_a_mail_arrives(box):
    channels.send(channel="email", target="ann@example.org", secret="", message=MESSAGE)
    [mail] = box.mails
    assert mail["To"] == "ann@example.org"
    assert mail["From"] == "Spyglass <openings@spyglass.example>"
    assert mail["Subject"] == MESSAGE.title
    assert mail["Message-ID"] == f"<{MESSAGE.message_id}@spyglass.example>"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail.get_content().splitlines() == MESSAGE.text.splitlines()


@pytest.mark.parametrize(
    ("command", "answer", "permanent"),
    [
        ("RCPT", "550 No such user", True),
        ("RCPT", "450 Try again", False),
        ("DATA", "554 Looks like spam", True),
        ("DATA", "451 Try again", False),
    ],
)
def test_what_a_mail_server_means(box, command, answer, permanent):
    box.refuses[command] = answer
    failed = failure(channels.send_mail, "ann@example.org", MESSAGE)
    assert (failed.permanent, failed.reason) == (permanent, answer)


def test_the_operators_mail_server_may_be_anywhere(box, settings):
    settings.OUTGOING_ALLOWED_HOSTS = []
    channels.send_mail("ann@example.org", MESSAGE)
    assert len(box.mails) == 1


def test_a_mail_server_that_is_away_or_not_set_up(box, settings):
    settings.EMAIL_PORT = 1
    failed = failure(channels.send_mail, "ann@example.org", MESSAGE)
    assert not failed.permanent
    settings.EMAIL_URL = ""
    assert "EMAIL_URL" in failure(channels.send_mail, "ann@example.org", MESSAGE).reason


def test_an_apprise_service_is_told(hook):
    url = hook.url.replace("http://", "json://")
    channels.send(channel="apprise", target=url, secret="", message=MESSAGE)
    [call] = hook.calls
    assert call.data["title"] == MESSAGE.title
    assert call.data["message"] == MESSAGE.text


def test_why_an_apprise_service_failed(hook):
    hook.answer(500)
    url = hook.url.replace("http://", "json://")
    failed = failure(channels.send_apprise, url, MESSAGE)
    assert not failed.permanent
    assert "500" in failed.reason


def test_an_apprise_service_inside_our_network_is_never_connected_to(hook, settings, monkeypatch):
    settings.OUTGOING_ALLOWED_HOSTS = []
    url = hook.url.replace("http://", "json://")
    failed = failure(channels.send_apprise, url, MESSAGE)
    assert failed.permanent
    # Nor where the check itself was passed.
    monkeypatch.setattr(channels, "check_apprise_url", lambda url: None)
    failed = failure(channels.send_apprise, url, MESSAGE)
    assert failed.permanent
    assert "private" in failed.reason
    assert hook.calls == []


def test_an_apprise_service_that_redirects_into_our_network(hook, settings, monkeypatch):
    settings.OUTGOING_ALLOWED_HOSTS = ["front.example"]
    real = outgoing._plain_getaddrinfo

    def resolve(host, *rest, **options):
        return real("127.0.0.1" if host == "front.example" else host, *rest, **options)

    monkeypatch.setattr(outgoing, "_plain_getaddrinfo", resolve)
    hook.answer(307, Location=f"http://localhost:{hook.port}/inner")
    failed = failure(channels.send_apprise, f"json://front.example:{hook.port}/", MESSAGE)
    assert failed.permanent
    assert "private" in failed.reason
    assert [call.path for call in hook.calls] == ["/"]


def test_an_apprise_service_that_drips_is_cut(settings):
    settings.OUTGOING_TIMEOUT_SECONDS = 0.2
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip():
            line, _ = server.accept()
            with line:
                line.recv(65_536)
                while not stop.wait(0.05):
                    try:
                        line.sendall(b"H")
                    except OSError:
                        return

        thread = threading.Thread(target=drip)
        thread.start()
        started = time.monotonic()
        failed = failure(
            channels.send_apprise, f"json://127.0.0.1:{server.getsockname()[1]}/", MESSAGE
        )
        stop.set()
        thread.join(5)
    assert time.monotonic() - started < 5
    assert not failed.permanent


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "no Apprise URL"),
        ("what is this", "no Apprise URL"),
        ("nothing://known", "no Apprise URL"),
        ("json://", "no Apprise URL"),
        ("json://localhost/", "private"),
        ("json://10.0.0.1/", "private"),
        ("xml://[::1]/", "private"),
        ("gotify://169.254.169.254/token123456789012", "private"),
        ("syslog://", "HTTP"),
        ("mailto://user:password@example.org", "HTTP"),
        ("mqtt://1.1.1.1/topic", "HTTP|no Apprise URL"),  # without its library it is unknown
        ("irc://1.1.1.1/channel", "HTTP"),
        ("xmpp://user:password@1.1.1.1", "HTTP|no Apprise URL"),
        ("discord://4174216298/JHMHI8qBe7bk2ZwO5U711o3dV_js?template=/etc/passwd", "file"),
    ],
)
def test_apprise_urls_that_are_refused(settings, url, reason):
    settings.OUTGOING_ALLOWED_HOSTS = []
    with pytest.raises(outgoing.Refused, match=reason):
        channels.check_apprise_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "json://1.1.1.1/hook",
        "jsons://1.1.1.1:8443/hook",
        "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#general",
        "discord://4174216298/JHMHI8qBe7bk2ZwO5U711o3dV_js",
        "tgram://123456789:abcdefg_hijklmnop/12315544",
        "ntfy://topic",
    ],
)
def test_apprise_urls_that_are_taken(settings, url):
    settings.OUTGOING_ALLOWED_HOSTS = []
    channels.check_apprise_url(url)


def test_a_test_message_names_its_watch():
    message = messages.test_of({"id": 7, "name": ""})
    assert message.title == "Test: watch 7"
    assert message.data["type"] == "test"
    assert message.data["message_id"] == message.message_id
