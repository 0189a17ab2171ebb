-- SPDX-License-Identifier: Apache-2.0
-- What cannot become well, how long to hope before saying so, and what to do about it. One row a symptom.
local M = {}

---@class eirun.Symptom
---@field reason string of an event, a waiting container or a condition
---@field match? string Lua pattern in the message
---@field patience number seconds after it was first seen
---@field hint string

-- Rows with a `match` come before the row of the same reason without one.
---@type eirun.Symptom[]
M.symptoms = {
  { reason = "FailedMount", match = "missing access key", patience = 20,
    hint = "the volume's Secret needs both akId and akSecret" },
  { reason = "FailedMount", match = "Access Key Id you provided does not exist", patience = 20,
    hint = "the access key of the volume does not exist: put one that does into its Secret" },
  { reason = "FailedMount", match = "signature we calculated does not match", patience = 20,
    hint = "the secret key of the volume is wrong: correct akSecret in its Secret" },
  { reason = "FailedMount", match = "AuthenticationFail", patience = 20,
    hint = "let the role's trust policy name the cluster's provider and system:serviceaccount:ack-csi-fuse:csi-fuse-ossfs" },
  { reason = "FailedMount", match = "EntityNotExist.Role", patience = 20, hint = "make the RAM role that the volume names" },
  { reason = "FailedMount", match = "[Ss]ecret", patience = 30,
    hint = "make the Secret that the volume's nodePublishSecretRef names, in that namespace" },
  { reason = "FailedMount", match = "NoSuchBucket", patience = 20, hint = "the bucket does not exist: check its name and region" },
  { reason = "FailedMount", match = "Bucket not found", patience = 20, hint = "the bucket does not exist: check its name and region" },
  { reason = "FailedMount", match = "bucket.*not exist", patience = 20, hint = "the bucket does not exist: check its name and region" },
  { reason = "FailedMount", match = "SignatureDoesNotMatch", patience = 20, hint = "the secret key of the volume is wrong" },
  { reason = "FailedMount", match = "signature we calculated", patience = 20, hint = "the secret key of the volume is wrong" },
  { reason = "FailedMount", match = "InvalidAccessKeyId", patience = 20, hint = "the access key of the volume does not exist" },
  { reason = "FailedMount", match = "Access Key Id", patience = 20, hint = "the access key of the volume does not exist" },
  { reason = "FailedMount", match = "Invalid Credentials", patience = 20,
    hint = "the volume's key is wrong, or may not read the bucket: grant oss:Get* and oss:List* on it" },
  { reason = "FailedMount", match = "AccessDenied", patience = 20,
    hint = "the volume's key may not read the bucket: grant oss:Get* and oss:List* on it" },
  { reason = "FailedMount", match = "[Rr]esolve", patience = 20, hint = "the volume's url is no OSS endpoint of this region" },
  { reason = "FailedMount", match = "list of registered CSI drivers", patience = 60, hint = "install the add-on csi-plugin" },
  { reason = "FailedMount", match = "endpoint", patience = 20,
    hint = "check the volume's url: oss-<region>-internal.aliyuncs.com, without the bucket" },
  { reason = "FailedMount", patience = 60, hint = "check bucket, url, path and key of the volume" },
  { reason = "FailedAttachVolume", patience = 120, hint = "check the volume and its driver" },

  { reason = "NotTriggerScaleUp", patience = 45,
    hint = "no node pool can hold this pod: compare its selector, GPUs and tolerations with the pool's labels, types and taints" },
  { reason = "ProvisionNodeFailed", patience = 120, hint = "the pool could not grow: look at its scaling activities, add types or zones" },
  { reason = "FailedToScaleUpGroup", match = "NoStock", patience = 120,
    hint = "none of the pool's types can be had in its zones: add types or zones (vswitch_ids), or let on-demand stand in" },
  { reason = "FailedToScaleUpGroup", patience = 120, hint = "the pool could not grow: look at its scaling activities" },
  { reason = "FailedToScaleUp", patience = 120, hint = "the pool could not grow: look at its scaling activities, add types or zones" },
  -- One message counts the nodes by reason. A node that only lacks GPUs has the labels, so that reason comes first.
  { reason = "FailedScheduling", match = "Insufficient nvidia", patience = 240,
    hint = "no node has that many GPUs free: ask for fewer, or raise the pool's maximum" },
  { reason = "FailedScheduling", match = "Insufficient aliyun", patience = 240,
    hint = "no node has that much GPU memory free: ask for less, or raise the pool's maximum" },
  { reason = "FailedScheduling", match = "selector", patience = 150,
    hint = "no node has the labels that the selector asks for: compare it with the node pool's labels" },
  { reason = "FailedScheduling", match = "taint", patience = 150, hint = "tolerate the pool's taints, or take them off" },
  { reason = "FailedScheduling", match = "persistentvolumeclaim", patience = 60, hint = "make the claim, and see that it is bound" },
  { reason = "FailedScheduling", patience = 240, hint = "see what the scheduler misses, and give it to the pool" },

  { reason = "InvalidImageName", patience = 0, hint = "write the image as registry/name:tag" },
  { reason = "ErrImagePull", patience = 45, hint = "check the image's name and tag, and that the nodes may pull it" },
  { reason = "ImagePullBackOff", patience = 30, hint = "check the image's name and tag, and that the nodes may pull it" },
  { reason = "CreateContainerConfigError", patience = 30, hint = "a ConfigMap or Secret that the container needs is missing" },
  { reason = "RunContainerError", patience = 60, hint = "see the container's log" },
  { reason = "CrashLoopBackOff", patience = 0, hint = "see why it ends: the log's last lines are quoted" },

  { reason = "FailedCreate", match = "quota", patience = 15, hint = "the namespace's quota is used up: raise it, or ask for less" },
  { reason = "FailedCreate", patience = 30, hint = "the API server refuses the pods: read its words" },
  { reason = "ProgressDeadlineExceeded", patience = 240, hint = "look at the pods' events" },
  { reason = "FailedGetScale", patience = 60, hint = "see that what the autoscaler scales exists" },
  { reason = "FailedGetExternalMetric", patience = 180, hint = "compare the metric's selector with what is logged, and send a request" },
  { reason = "BackoffLimitExceeded", patience = 0, hint = "see the log of its last pod" },
  { reason = "DeadlineExceeded", patience = 0, hint = "raise activeDeadlineSeconds, or make it faster" },
  { reason = "VolumeMismatch", patience = 10,
    hint = "the named volume does not fit the claim: compare size, access modes and storage class" },
  { reason = "ClaimLost", patience = 10, hint = "its volume is gone: delete the claim, and make both again" },
  { reason = "FailedBinding", patience = 30, hint = "no volume fits the claim: compare labels, size, access modes and storage class" },
  { reason = "ProvisioningFailed", patience = 30, hint = "a claim with a selector needs storageClassName: \"\" and a ready volume" },
}

-- Means that nodes are on their way, so an unscheduled pod may still become well.
M.hopeful = { ProvisionNode = true, TriggeredScaleUp = true }

-- What TensorFlow Serving writes when it will never serve what was asked.
M.log_symptoms = {
  { match = "was not found in the file system", patience = 20,
    hint = "upload that version, or ask for one that is there: the folder below the model path is the version" },
  { match = "No versions of servable", patience = 20, hint = "the model path holds no version folder with a saved_model.pb" },
  { match = "Could not find base path", patience = 20, hint = "the model path does not exist in the volume: check model_path and data" },
  -- The server tries again, once a minute, five times.
  { match = "Loading servable: .* failed", patience = 330, hint = "the SavedModel cannot be loaded: read the log" },
}

---The row for a reason and its message, nil when it is none of ours.
---@param reason string
---@param message string
---@return eirun.Symptom|nil
function M.symptom(reason, message)
  for _, row in ipairs(M.symptoms) do
    if row.reason == reason and (not row.match or message:find(row.match)) then return row end
  end
end

---The first line of a log that says why nothing will be served, with its row.
---@param text string
---@return string|nil line
---@return table|nil row
function M.in_log(text)
  for line in text:gmatch("[^\n]+") do
    for _, row in ipairs(M.log_symptoms) do
      if line:find(row.match) then return line, row end
    end
  end
end

return M
