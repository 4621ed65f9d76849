"""The names that job queues give to their fields and statuses, by jobmon's names.

Names of fields are written with lower-case letters and digits only: `next_run_at` is `nextrunat`,
and `lock.until` is `lockuntil`.
"""

import re
import unicodedata
from collections.abc import Iterable

from jobmon.domain import JobStatus

_UNIT = re.compile("(?:ms|millis|secs?|ts|timestamp|utc|iso|date|time)$")


def normalize(name: str) -> str:
    """The letters and digits of a name, in lower case, without accents and without dotless i."""
    decomposed = unicodedata.normalize("NFKD", name).casefold().replace("\u0131", "i")
    return "".join(character for character in decomposed if character.isalnum())


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# Documents that group the dates of a job: `times.created`.
_DATE_GROUPS = _split("ts time times timeinfo timing timestamps dates audit schedule execution")
# In such a document, these names need no more words.
_GROUPED_DATES = {"start": "started", "begin": "began", "end": "ended", "stop": "ended"}
# jobmon proposes the field with the first of these names that the documents have.
STATUS = _split(
    "status state jobstatus jobstate taskstatus taskstate phase stage statename currentstate "
    "currentstatus statusname statuscode statusvalue statusstate statusphase statuscurrent "
    "statecode statevalue statestatus statephase"
)
PHASES = _split("phase stage")  # names in STATUS that other fields have, too
# How an ended job ended, if its status does not show it.
OUTCOMES = _split(
    "conclusion outcome substatus substate endstate result resultstatus finalstatus exitstatus"
)
DATES = {
    "createdAt": _split(
        "createdat created createdon datecreated creationdate createtime creationtime "
        "insertedat enqueuedat queuedat submittedat addedat pushedat inserted enqueued queued "
        "submitted added queuetime submittime received publication"
    ),
    "updatedAt": _split("updatedat updated updatedon lastupdated lastmodified modifiedat modified"),
    "nextRunAt": _split(
        "nextrunat nextrun runat runafter scheduledat scheduledfor scheduledtime "
        "scheduleat schedulefor notbefore availableat visibleat visible processafter startafter "
        "delayuntil delayeduntil waituntil nextattemptat nextattempt nexttry nextretry "
        "nextretryat retryat dueat due eta executeat executeafter triggerat triggertime "
        "nextfiretime nextexecution executiontime earliestget sleepuntil nexttime nextreevaluation "
        "delayed delay after available dequeueafter"
    ),
    "startedAt": _split(
        "startedat started startedon lastrunat pickedat pickedupat processedon processingstartedat "
        "startedrunningat beganat began executedat laststartedat laststarted lastattemptat "
        "dequeuedat dequeued triggeredat lastrun lasttrytime starttime attemptedat lastattemptedat"
    ),
    "finishedAt": _split(
        "finishedat finished finishedon completedat completed completedon endedat ended doneat "
        "done processedat lastfinishedat endtime stoptime finishtime resolvedat publishedat sentat "
        "dispatchedat dispatched completion"
    ),
    "leaseExpiresAt": _split(
        "leaseexpiresat leaseuntil leaseexpires leaseexpiry leasedeadline lockeduntil lockuntil "
        "lockexpiresat lockexpires lockexpiry claimeduntil reserveduntil blockeduntil "
        "visibilitydeadline visibilitytimeout"
    ),
}
# The time when a worker took a job, without the end of the lease.
LEASE_STARTS = _split(
    "lockedat leasedat claimedat reservedat acquiredat lockat fetchedat locktime reservedon "
    "lockedon processingstarted processingat runningat takenat executingat"
)
# Dates that a message gets when it is acknowledged, if a lease hides it until a date.
REMOVALS = _split("deleted deletedat removedat")
# Names that show that one worker holds a message.
LEASE_TOKENS = _split("ack claimid claimtoken leaseid leasetoken lockid locktoken receipthandle")
# Flags and dates that a job gets in a state: `done`, `failed_at`.
STATE_FIELDS = {
    JobStatus.LEASED: _split(
        "inprogress isinprogress inprog running isrunning processing isprocessing executing locked "
        "islocked reserved isreserved leased picked ispicked claimed isclaimed taken busy "
        "deliveredat"
    ),
    JobStatus.SUCCEEDED: _split(
        "done isdone completed iscompleted complete iscomplete finished isfinished succeeded "
        "success processed isprocessed handled ishandled executed published ispublished sent "
        "issent dispatched isdispatched consumed acked acknowledged"
    ),
    JobStatus.DLQ: _split(
        "dead isdead deadat deadlettered isdeadlettered deadletteredat buried isburied buriedat "
        "abandoned isabandoned abandonedat permanentlyfailed failedpermanently discardedat failed "
        "isfailed hasfailed failedat failedon errored faulted faultedat"
    ),
    JobStatus.CANCELLED: _split(
        "cancelled iscancelled cancelledat canceled iscanceled canceledat aborted isaborted revoked"
    ),
}
WORKERS = _split(
    "leasedby lockedby workerid workername worker claimedby reservedby takenby processedby "
    "lockowner leaseowner lockby leaseby lockedworker pickedby deliveredto processor "
    "consumer runner"
)
ATTEMPT_COUNTS = _split(
    "attemptcount attempts attempt attemptsmade numattempts attemptnumber tries trycount runcount "
    "retryinfocurrentattempt attemptscount deliverycount deliveryattempts completionattempts"
)
RETRY_COUNTS = _split(
    "retries retrycount retried numretries retrynumber failcount failures failurecount "
    "consecutivefailures"
)
REMAINING_COUNTS = _split(
    "retriesleft retriesremaining remainingretries attemptsleft attemptsremaining remainingattempts"
)
MAX_ATTEMPTS = _split("maxattempts maxtries maxruns attemptsmax attemptlimit")
MAX_RETRIES = _split("maxretries retrylimit retriesmax")
QUEUE_NAMES = _split("queue queuename")
PRIORITIES = _split("priority prio")
FAILURE_DATES = _split("failedat failedon faileddate deadat abandonedat faultedat faulted")
ERROR_COUNTS = _split("errors errcount errorcount")
ERRORS = _split(
    "lasterror error err errormessage lasterrormessage failreason failurereason failedreason "
    "exception exceptionmessage causemessage errordetail excinfo traceback lastfailreason"
)
TYPES = _split(
    "type jobtype tasktype kind jobkind jobname taskname name task job handler action command "
    "function method methodname funcname functionname handlername eventtype jobclass class klass "
    "category topic channel queue queuename jobsignature path"
)
PAYLOADS = _split(
    "payload data args arguments params parameters input inputs body message jobdata jobasjson "
    "jobargs msg"
)
# They hold arguments only if they are documents or JSON texts.
PAYLOAD_DOCUMENTS = _split("job spec content metadata event")
# Payloads that documents of other kinds have, too.
OTHER_CONTENTS = _split("content metadata event")
_OWNERS = _split("createdby ownerid owner userid user accountid customerid requestedby")
ATTEMPT_ARRAYS = _split("attempts runs history log logs executions statuses failures")

# Words in the name of a collection of jobs.
COLLECTION_WORDS = re.compile(
    "jobs?|queues?|tasks?|work_?items?|outbox|event_?publications?|dead_?letters?", re.IGNORECASE
)

_WORDS = {
    JobStatus.QUEUED: (
        "queued pending waiting wait new ready scheduled enqueued created todo delayed submitted "
        "available idle inqueue notstarted inactive runnable requested unprocessed undispatched "
        "wartend wartet geplant enattente attente pendiente encola enespera pendente "
        "aguardando nafila inattesa вочереди ожидает ожидание новый 待处理 待执行 等待 等待中 "
        "oczekujące oczekuje wachtend wachten 대기 대기중 "
        "bekliyor beklemede sirada väntar väntande venter afventer čeká очікує вчерзі "
        "đangchờ chờxửlý menunggu "
        "排队中 未处理 未开始 待機中 待機 未処理"
    ),
    JobStatus.LEASED: (
        "leased running active processing inprogress inprog started working executing locked "
        "reserved claimed taken picked pickedup assigned busy acquired fetched dequeued inflight "
        "läuft laeuft inbearbeitung inarbeit gestartet encours traitement enproceso encurso "
        "procesando ejecutando processando emandamento executando incorso inesecuzione "
        "wtrakcie bezig 진행중 처리중 실행중 "
        "isleniyor calisiyor pågår körs igang kører kjører probíhá виконується обробляється "
        "đangxửlý đangchạy diproses berjalan "
        "выполняется обрабатывается вработе 处理中 进行中 运行中 执行中 処理中 実行中"
    ),
    JobStatus.SUCCEEDED: (
        "succeeded success successful done completed complete finished ok processed executed sent "
        "published consumed resolved acknowledged acked "
        "erledigt fertig abgeschlossen erfolgreich terminé réussi fini completado completada "
        "terminado finalizado hecho exitoso concluído concluida completato completata finito "
        "zakończone zakończony voltooid gereed 완료 성공 "
        "tamamlandi basarili slutförd klar færdig afsluttet fuldført ferdig fullført dokončeno "
        "hotovo виконано завершено hoànthành thànhcông selesai berhasil "
        "выполнено завершено завершен успешно готово 已完成 完成 成功 已处理 完了 成功済み"
    ),
    JobStatus.FAILED: (
        "retry retrying retryable retryscheduled willretry waitingretry waitingforretry "
        "retrypending pendingretry upforretry resubmitted requeued"
    ),
    JobStatus.DLQ: (
        "dlq dead deadletter deadlettered deadletters deadqueue exhausted discarded abandoned "
        "buried permanentlyfailed failedpermanently finallyfailed gaveup maxretries "
        "maxretriesexceeded poisoned quarantined"
    ),
    JobStatus.CANCELLED: (
        "cancelled canceled cancel aborted abort revoked killed skipped deleted defused terminated "
        "abgebrochen storniert annulé cancelado cancelada annullato anulowane geannuleerd "
        "отменено отменен 취소 已取消 取消 "
        "iptal iptaledildi avbruten annulleret avbrutt zrušeno скасовано đãhủy dibatalkan "
        "キャンセル キャンセル済み"
    ),
}
# Words for a failed job that do not show whether the program tries it again.
_FAILED_WORDS = (
    "failed failure fail error errored timedout timeout expired stalled crashed died faulted fault "
    "rejected "
    "fizzled fehlgeschlagen fehler échoué échec erreur fallido fallida falló falhou falha fallito "
    "errore błąd mislukt 실패 오류 ошибка неудача 失败 错误 异常 失敗 エラー "
    "basarisiz hata misslyckades fejlet feilet selhalo chyba помилка thấtbại lỗi gagal"
)
# Words that queues use, too, but for which jobmon has no status of its own.
_OTHER_WORDS = (
    "paused suspended held hold onhold blocked stopped stopping interrupted interrupt merged "
    "disabled awaiting unknown received canceling cancelling archived"
)
# What a word means if another status of the program has its usual meaning; None: it is unknown.
_SECOND_MEANINGS = {
    "published": JobStatus.QUEUED,  # published to a listener that has not run
    "consumed": JobStatus.LEASED,  # consumed, but not done
    "dequeued": None,
}
# Words in a status that do not change its meaning: `JOB_STATE_RUNNING`.
_EMPTY_WORDS = frozenset({"status", "state", "job", "task", "is", "has", "been"})
_STATUS_WORDS = {
    normalize(word): status.value for status, words in _WORDS.items() for word in words.split()
}
_FAILURES = frozenset(map(normalize, _FAILED_WORDS.split()))
_KNOWN_WORDS = _STATUS_WORDS.keys() | _FAILURES | frozenset(_OTHER_WORDS.split())


def _find_word(name: str) -> str:
    """The part of a status that has its meaning: `inprogress` of `TaskStatus.IN_PROGRESS`."""
    whole = normalize(name)
    if whole in _KNOWN_WORDS:
        return whole
    parts = re.findall(r"[^\W_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name))
    return normalize("".join(part for part in parts if part.lower() not in _EMPTY_WORDS))


def find_status(name: str, others: Iterable[str] = ()) -> str | None:
    """jobmon's status for a status of a program; None if its word has no or no clear meaning.

    `others`: all statuses of the program. `published` is an end, but not if there is `completed`.
    """
    word = _find_word(name)
    status = _STATUS_WORDS.get(word)
    if word not in _SECOND_MEANINGS:
        return status
    # Two such words do not decide what the other one means.
    clear = [other for other in others if _find_word(other) not in _SECOND_MEANINGS]
    found = set(map(find_status, clear))
    if status not in found:
        return status
    second = _SECOND_MEANINGS[word]
    return None if second is None or second in found else second.value


def is_failure(name: str) -> bool:
    """Whether a status means a failure, and does not show whether the job is tried again."""
    return _find_word(name) in _FAILURES


def is_known(name: str) -> bool:
    """Whether a status is a word that job queues use."""
    return _find_word(name) in _KNOWN_WORDS


def find_path(names: Iterable[str], paths: Iterable[str], *, are_dates: bool = False) -> str | None:
    """The path with the first of these names; of several paths with that name, the shallowest.

    A document of a status may have the field: `status.attempts`. With `are_dates`, a name may end
    with its unit, and a document may group the dates: `run_at_ms`, `times.created`.
    """
    ordered = sorted(paths, key=lambda path: (path.count("."), path))
    by_name: dict[str, str] = {}
    for path in ordered:
        group, _, leaf = path.rpartition(".")
        by_name.setdefault(normalize(path), path)
        if normalize(group) in STATUS:
            name = normalize(leaf)
            by_name.setdefault("lockowner" if name == "owner" else name, path)
    for path in ordered if are_dates else ():
        group, _, leaf = path.rpartition(".")
        by_name.setdefault(_UNIT.sub("", normalize(path)), path)
        by_name.setdefault(normalize(path).removeprefix("date"), path)
        if normalize(group) in _DATE_GROUPS:
            name = _UNIT.sub("", normalize(leaf))
            by_name.setdefault(_GROUPED_DATES.get(name, name), path)
    return next((by_name[name] for name in names if name in by_name), None)


def find_owner(paths: Iterable[str], payload: str | None) -> str | None:
    """The path of a field that may hold a job's owner: top-level, or in the payload."""
    inner = f"{payload}." if payload else None
    owners: dict[str, str] = {}
    for path in sorted(paths, key=len):
        if "." not in path or (inner and path.startswith(inner)):
            owners.setdefault(normalize(path.removeprefix(inner or "")), path)
    return next((owners[name] for name in _OWNERS if name in owners), None)
