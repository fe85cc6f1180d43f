// Every word of the page's own, in Chinese and English. Verdict sentences come from messages.py.

export const WORDS = {
  title: ["居住证件核验", "Permit Verification"],
  unanchored: ["尚未载入信任数据", "No trust data yet"],
  purpose: ["核验用途", "Purpose of this check"],
  cameraOn: ["打开摄像头", "Start camera"],
  cameraOff: ["关闭摄像头", "Stop camera"],
  cameraSwitch: ["切换摄像头", "Switch camera"],
  light: ["补光灯", "Light"],
  choose: ["选择图片或文件", "Choose picture or file"],
  wedgeReady: ["扫码枪就绪：对准二维码扫描即可", "Barcode scanner ready: just scan"],
  wedgeBusy: ["正在接收扫码枪数据…", "Receiving from the scanner…"],
  aim: ["请将证件二维码置于框内", "Hold the permit's symbol inside the frame"],
  starting: ["正在启动摄像头…", "Starting the camera…"],
  cameraDenied: [
    "无法使用摄像头：请在浏览器中允许，或改用扫码枪、图片。",
    "No access to the camera: allow it in the browser, or use a scanner or a picture.",
  ],
  cameraNone: ["没有找到摄像头，请使用扫码枪或图片。", "There is no camera; use a scanner or a picture."],
  cameraInsecure: [
    "浏览器只允许在 https 或本地文件页面中使用摄像头，请使用扫码枪或图片。",
    "Browsers allow the camera only on https pages and local files; use a scanner or a picture.",
  ],
  idle: ["请出示证件", "Ready"],
  idleHint: [
    "扫描暂住证或居住证上的二维码，不联网即可核验真伪、有效期和证件状态。",
    "Scan the symbol on a residence permit. It is checked on this device, even offline.",
  ],
  wayCamera: ["摄像头", "Camera"],
  wayScanner: ["扫码枪", "Scanner"],
  wayFile: ["图片、拖放、粘贴", "Picture, drop, paste"],
  nothingKept: ["本机不留存核验记录", "This device keeps no record of checks"],
  valid: ["有效", "VALID"],
  refused: ["不予采信", "NOT ACCEPTED"],
  unclear: ["无法核验", "NOT VERIFIED"],
  next: ["下一位", "Next"],
  checkedAt: ["核验时间", "Checked"],
  working: ["正在核验…", "Checking…"],
  noSymbol: [
    "图片中没有可识别的二维码，请拍近、拍正、避免反光后重试。",
    "No readable symbol in the picture; take it closer, straight, and without glare.",
  ],
  badFile: ["这个文件不是图片，也不是信任数据。", "The file is neither a picture nor trust data."],
  noReader: ["本浏览器无法识别图片，请使用扫码枪。", "This browser cannot read pictures; use a scanner."],
  inputMethod: [
    "扫码枪内容被输入法截获，请切换到英文输入后重扫。",
    "An input method caught the scanner's text; switch it to English and scan again.",
  ],
  needTrust: ["请先载入信任数据", "Load the trust data first"],
  needTrustHint: [
    "信任数据是登记机关发布的密钥和证件状态清单（文件 trust.anju）。请从机关网站或 U 盘载入，此后不联网也能核验。",
    "Trust data is the authority's list of keys and permit statuses (the file trust.anju). Load it from the authority's site or a stick; from then on checks need no network.",
  ],
  loadTrust: ["载入信任数据", "Load trust data"],
  trust: ["信任数据", "Trust data"],
  fresh: ["最新", "up to date"],
  stale: ["较旧，请尽快更新", "getting old, update soon"],
  tooOld: ["已过期，请立即更新", "too old, update now"],
  clockWrong: ["本机时间有误", "the clock of this device is wrong"],
  published: ["发布于", "published"],
  update: ["更新", "Update"],
  details: ["详情", "Details"],
  authority: ["签发机关", "Authority"],
  issuer: ["签发服务", "Issuer"],
  fingerprint: ["根指纹", "Root fingerprint"],
  version: ["版本", "Version"],
  usableUntil: ["可用至", "Usable until"],
  keys: ["密钥", "Keys"],
  lists: ["状态清单", "Status lists"],
  source: ["来源", "Source"],
  sourceServer: ["本页面所在服务器", "the server of this page"],
  sourceCarried: ["随本页面附带", "carried inside this page"],
  sourceFile: ["文件", "a file"],
  sourceMemory: ["本机保存", "kept on this device"],
  compareTitle: ["首次使用：请核对根指纹", "First use: compare the fingerprint"],
  compareHint: [
    "请与机关公布的根指纹逐组核对。完全一致才可信任；不一致说明文件不是该机关发布的。",
    "Compare it group by group with the fingerprint the authority made known. Trust the file only if every group is the same.",
  ],
  same: ["一致，信任", "Same: trust it"],
  different: ["不一致，放弃", "Different: discard"],
  trustLoaded: ["信任数据已更新", "Trust data updated"],
  trustSame: ["信任数据已是最新", "Trust data is already the newest"],
  notRemembered: [
    "浏览器不允许保存：关闭页面后需重新载入信任数据。",
    "This browser cannot store: trust data must be loaded again after the page is closed.",
  ],
  NOT_A_BUNDLE: ["这个文件不是信任数据，或已损坏、未拷完。", "The file is no trust data, or damaged, or half copied."],
  NOT_A_DELTA: [
    "信任数据增量文件已损坏或未拷完，未予采用。",
    "The file with a day's changes is damaged or half copied; it is not used.",
  ],
  DELTA_UNFIT: [
    "增量文件与本机信任数据不衔接，请载入完整的信任数据。",
    "These changes do not follow on the trust data here; load the whole trust data.",
  ],
  BAD_TRUST: ["信任数据未通过验证，未予采用。", "The trust data did not verify; it is not used."],
  WRONG_ROOT: [
    "信任数据属于另一机关，未予采用。如确需更换，请先在设置中清除。",
    "The trust data is another authority's; it is not used. If that is meant, forget the present one in the settings.",
  ],
  ROLLBACK: [
    "信任数据比本机用过的旧，未予采用。请取最新的。",
    "The trust data is older than what this device has used; fetch the newest.",
  ],
  BAD_STATE: [
    "本机保存的信任记录损坏。请在设置中清除后重新载入并核对指纹。",
    "What this device remembers is damaged. Forget it in the settings, load anew, and compare the fingerprint.",
  ],
  settings: ["设置", "Settings"],
  autoReset: ["自动清屏", "Clear the screen after"],
  never: ["不自动", "never"],
  seconds: ["秒", "seconds"],
  sound: ["声音提示", "Sounds"],
  keepCamera: ["核验后继续使用摄像头", "Keep the camera on after a check"],
  forget: ["清除本机信任记录", "Forget the trust of this device"],
  forgetSure: [
    "清除后须重新载入信任数据并核对根指纹，确定吗？",
    "You will have to load trust data again and compare the root fingerprint. Forget it?",
  ],
  licences: ["许可证", "Licences"],
  close: ["关闭", "Close"],
  cancel: ["取消", "Cancel"],
  offlineReady: ["已可离线使用", "Works offline"],
  newPage: ["核验页面有新版本，刷新后启用", "A new version of this page takes effect on reload"],
  photo: ["持证人照片", "Photo of the holder"],
  internalClock: ["本机时间", "Device clock"],
};

let language = 0;

export function setLanguage(code) {
  language = code === "en" ? 1 : 0;
}

export const languageCode = () => (language ? "en" : "zh");

/** The words for `key` in the chosen language, or in the other one. */
export const word = (key) => WORDS[key][language];
export const otherWord = (key) => WORDS[key][1 - language];
/** Of a pair [Chinese, English]. */
export const pick = (pair) => pair[language];
export const pickOther = (pair) => pair[1 - language];
