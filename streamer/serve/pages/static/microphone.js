// The microphone as int16 blocks at its own rate. The daemon resamples, as for every other client: its resampler gives the
// same samples however the sound is cut, while those of browsers differ.

export class MicrophoneError extends Error {}

/** Why there is no microphone here, and what to do; "": there may be one. */
export function unusable() {
  if (window.isSecureContext && navigator.mediaDevices?.getUserMedia) return "";
  return window.isSecureContext
    ? "This browser gives pages no microphone."
    : "Browsers give a microphone only to pages of this machine (localhost) or over HTTPS. Open http://localhost, or set tls_cert_file and tls_key_file.";
}

const REFUSALS = {
  NotAllowedError: "The browser does not let this page use the microphone. Allow it (the sign beside the address), then start again.",
  NotFoundError: "There is no microphone. Plug one in, then start again.",
  NotReadableError: "Another program holds the microphone. Close it there, then start again.",
};

/** `cleanup`: the browser's own echo and noise removal. `heard(block, peak)` comes some 25 times a second. Throws
 * {@link MicrophoneError}. Gives `{rate, stop()}`; after `stop` nothing more is heard. */
export async function openMicrophone(cleanup, heard, lost) {
  const audio = { channelCount: 1, echoCancellation: cleanup, noiseSuppression: cleanup, autoGainControl: cleanup };
  let media;
  try {
    media = await navigator.mediaDevices.getUserMedia({ audio });
  } catch (error) {
    throw new MicrophoneError(REFUSALS[error.name] ?? `The microphone can't be opened: ${error.message}`);
  }
  let context = null, node;
  try {
    context = new AudioContext({ latencyHint: "interactive" });
    await context.audioWorklet.addModule("/pages/worklet.js");
    await context.resume();
    const options = { numberOfInputs: 1, numberOfOutputs: 1, channelCount: 1, channelCountMode: "explicit", channelInterpretation: "speakers" };
    node = new AudioWorkletNode(context, "pcm", options);
    const silence = new GainNode(context, { gain: 0 }); // some browsers run only what leads to the loudspeaker
    context.createMediaStreamSource(media).connect(node).connect(silence).connect(context.destination);
  } catch (error) {
    media.getTracks().forEach((track) => track.stop());
    await context?.close();
    throw new MicrophoneError(`This browser can't pass sound on (AudioWorklet): ${error.message}`);
  }
  let ended, stopped = false;
  const last = new Promise((resolve) => (ended = resolve));
  node.port.onmessage = ({ data }) => (data ? heard(data.block, data.peak) : ended());
  media.getTracks().forEach((track) => (track.onended = lost));
  return {
    rate: context.sampleRate,
    async stop() {
      if (stopped) return;
      stopped = true;
      media.getTracks().forEach((track) => (track.onended = null));
      node.port.postMessage("stop");
      await Promise.race([last, new Promise((resolve) => setTimeout(resolve, 500))]);
      media.getTracks().forEach((track) => track.stop());
      await context.close();
    },
  };
}
