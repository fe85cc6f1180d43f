"""Words for people: one sentence for every reason, in English and Chinese, and the sexes.

A sentence says what to do next, and never that the holder did wrong: most refusals are old trust
data, wrong clocks, and torn paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from issuance.types import Gender, Reason

# As permits and verdicts show them.
GENDERS: Final[Mapping[Gender, str]] = {
    Gender.MALE: "男",
    Gender.FEMALE: "女",
    Gender.OTHER: "其他",
}

_DAMAGED: Final = (
    "The symbol is damaged or incomplete; scan it again or ask for a fresh print.",
    "二维码损坏或不完整，请重新扫描或补打证件。",
)
_UNTRUSTWORTHY: Final = (
    "The permit does not come from the authority; do not accept it, and call the help desk.",
    "该证件并非签发机关签发，请勿采信，并联系技术支持。",
)
_UPDATE_VERIFIER: Final = (
    "The permit uses a feature this verifier does not have; update the verifier.",
    "该证件使用了本核验程序不支持的功能，请升级核验程序。",
)

# The fields in braces are filled in by `sentences`.
_SENTENCES: Final[Mapping[Reason, tuple[str, str]]] = {
    Reason.VALID: ("The permit is valid until {until}.", "证件有效，有效期至 {until}。"),
    Reason.NOT_A_PERMIT: (
        "This is not a residence permit of ours.",
        "这不是本系统签发的居住证件。",
    ),
    Reason.TOO_LARGE: (
        "The symbol holds far more than a permit; do not accept it.",
        "二维码内容异常庞大，请勿采信。",
    ),
    Reason.MALFORMED: _DAMAGED,
    Reason.DUPLICATE_KEY: (
        "The permit states something twice; do not accept it, and call the help desk.",
        "证件内容存在重复字段，请勿采信，并联系技术支持。",
    ),
    Reason.UNSUPPORTED_CRITICAL: _UPDATE_VERIFIER,
    Reason.UNSUPPORTED_ALGORITHM: _UPDATE_VERIFIER,
    Reason.CLOCK_BEFORE_TRUST: (
        "The clock of this device is wrong: it is behind {published}. Set it and try again.",
        "本机时间有误（早于 {published}），请校准时间后重试。",
    ),
    Reason.TRUST_TOO_OLD: (
        "The trust data of this device is too old (of {published}); update it and try again.",
        "本机信任数据已过期（{published} 发布），请更新后重试。",
    ),
    Reason.UNKNOWN_KEY: (
        "The key that signed this permit is not known here; update the trust data and try again.",
        "签发密钥未知，请更新信任数据后重试。",
    ),
    Reason.WRONG_KEY_USE: _UNTRUSTWORTHY,
    Reason.ALGORITHM_MISMATCH: _UNTRUSTWORTHY,
    Reason.BAD_SIGNATURE: (
        "The signature is wrong: the permit was altered or forged. Do not accept it.",
        "签名无效：证件内容被篡改或系伪造，请勿采信。",
    ),
    Reason.KEY_COMPROMISED: (
        "The key that signed this permit was withdrawn; the holder gets a new permit free of "
        "charge.",
        "签发密钥已停用，请持证人到登记服务站免费换领新证。",
    ),
    Reason.MISSING_EXPIRY: (
        "The permit has no expiry; do not accept it, and call the help desk.",
        "证件没有有效期，请勿采信，并联系技术支持。",
    ),
    Reason.WRONG_ISSUER: (
        "The permit names another issuer than the trust data does; check which city issued it.",
        "证件签发机构与信任数据不符，请确认签发城市。",
    ),
    Reason.VALIDITY_TOO_LONG: _UNTRUSTWORTHY,
    Reason.KEY_OUT_OF_PERIOD: _UNTRUSTWORTHY,
    Reason.NOT_YET_VALID: (
        "The permit becomes valid only on {begin}; check also the clock of this device.",
        "证件自 {begin} 起生效，请同时核对本机时间。",
    ),
    Reason.EXPIRED: (
        "The permit expired after {until}; the holder can renew it at a station.",
        "证件已于 {until} 到期，持证人可到登记服务站续办。",
    ),
    Reason.REVOKED: (
        "The permit was revoked; the holder can ask at a station why, and appeal.",
        "证件已注销，持证人可到登记服务站查询原因或提出申诉。",
    ),
    Reason.SUSPENDED: (
        "The permit is suspended; the holder can clear this up at a station.",
        "证件已暂停使用，持证人可到登记服务站办理恢复。",
    ),
    Reason.STATUS_UNKNOWN: (
        "Whether the permit still stands is not known here; update the trust data and try again.",
        "无法确认证件状态，请更新信任数据后重试。",
    ),
    Reason.PURPOSE_NOT_ALLOWED: (
        "The permit was not issued for use by this department.",
        "该证件的使用范围不包括本部门。",
    ),
    Reason.INTERNAL: (
        "The verifier failed; do not decide on this answer, and call the help desk.",
        "核验程序出错，请勿据此作出决定，并联系技术支持。",
    ),
}


def sentences(reason: Reason, **values: str) -> tuple[str, str]:
    """The English and the Chinese sentence; `values` fill until, begin or published."""
    english, chinese = _SENTENCES[reason]
    return english.format(**values), chinese.format(**values)
