// The camera: frames to the reader one at a time, as fast as it reads them.

const WIDTH = 1920;
const HEIGHT = 1080;
const PAUSE_MS = 60; // leaves the processor of an old counter PC some air between frames

export class Camera {
  #video;
  #reader;
  #stream = null;
  #canvas = document.createElement("canvas");
  #run = 0;
  #devices = [];

  constructor(video, reader) {
    this.#video = video;
    this.#reader = reader;
  }

  get running() {
    return this.#stream !== null;
  }

  get several() {
    return this.#devices.length > 1;
  }

  get hasLight() {
    return Boolean(this.#track?.getCapabilities?.().torch);
  }

  get #track() {
    return this.#stream?.getVideoTracks()[0];
  }

  /** Show the camera and call `onTexts(texts, ms)` for every frame, also for those without any. */
  async start(onTexts, deviceId) {
    this.stop();
    const run = ++this.#run;
    const which = deviceId ? { deviceId: { exact: deviceId } } : { facingMode: { ideal: "environment" } };
    const stream = await navigator.mediaDevices.getUserMedia({
      audio: false,
      video: { ...which, width: { ideal: WIDTH }, height: { ideal: HEIGHT } },
    });
    if (run !== this.#run) {
      for (const track of stream.getTracks()) track.stop();
      return;
    }
    this.#stream = stream;
    this.#video.srcObject = stream;
    await this.#video.play();
    const devices = await navigator.mediaDevices.enumerateDevices();
    this.#devices = devices.filter((device) => device.kind === "videoinput");
    this.#track.applyConstraints({ advanced: [{ focusMode: "continuous" }] }).catch(() => {});
    this.#loop(run, onTexts);
  }

  stop() {
    this.#run += 1;
    for (const track of this.#stream?.getTracks() ?? []) track.stop();
    this.#stream = null;
    this.#video.srcObject = null;
  }

  /** The camera after the present one, as the id to start. */
  nextDevice() {
    const present = this.#track?.getSettings().deviceId;
    const at = this.#devices.findIndex((device) => device.deviceId === present);
    return this.#devices[(at + 1) % this.#devices.length]?.deviceId;
  }

  light(on) {
    return this.#track?.applyConstraints({ advanced: [{ torch: on }] }).catch(() => {});
  }

  async #loop(run, onTexts) {
    while (run === this.#run) {
      await new Promise((resolve) => requestAnimationFrame(resolve));
      const picture = run === this.#run ? this.#frame() : null;
      if (picture !== null) {
        let answer;
        try {
          answer = await this.#reader.read(picture, false);
        } catch {
          this.stop();
          onTexts(null, 0);
          return;
        }
        if (run === this.#run) onTexts(answer.texts, answer.ms);
      }
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  }

  #frame() {
    const { videoWidth: width, videoHeight: height } = this.#video;
    if (!width || !height) return null;
    const canvas = this.#canvas;
    if (canvas.width !== width) canvas.width = width;
    if (canvas.height !== height) canvas.height = height;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(this.#video, 0, 0);
    return context.getImageData(0, 0, width, height);
  }
}
