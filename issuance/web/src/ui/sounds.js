// Three short sounds that differ in tune and not only in pitch. Off unless asked for.

const TUNES = {
  valid: [[880, 0, 0.09], [1318, 0.1, 0.16]],
  refused: [[196, 0, 0.22], [147, 0.26, 0.34]],
  unclear: [[523, 0, 0.12], [523, 0.2, 0.12]],
};
let audio = null;

export function play(kind) {
  try {
    audio ??= new AudioContext();
    for (const [frequency, from, length] of TUNES[kind]) {
      const tone = audio.createOscillator();
      const volume = audio.createGain();
      const begin = audio.currentTime + from;
      tone.type = kind === "refused" ? "square" : "sine";
      tone.frequency.value = frequency;
      volume.gain.setValueAtTime(0.0001, begin);
      volume.gain.exponentialRampToValueAtTime(0.18, begin + 0.015);
      volume.gain.exponentialRampToValueAtTime(0.0001, begin + length);
      tone.connect(volume).connect(audio.destination);
      tone.start(begin);
      tone.stop(begin + length);
    }
  } catch {
    // A counter without a loudspeaker still has the picture and the words.
  }
}
