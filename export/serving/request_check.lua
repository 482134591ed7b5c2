-- What of a request can crash TF Serving or hold a thread of it, whatever its size, is refused
-- here, by Envoy (envoy.yaml), before it gets there:
--
--   gRPC  tensors of a dtype that the model does not take (a DT_RESOURCE ends the process),
--         claimed shapes over MAX_ELEMENTS ([1, 1000000000] fits in ten bytes), compressed
--         messages, protobuf that is not well-formed as far as it is read here
--   REST  JSON nested over MAX_DEPTH (100,000 levels end the process), compressed bodies
--
-- The size of a body is envoy.yaml's to limit: body() answers 413 over it.

local MAX_ELEMENTS = 262144  -- 128 rows of 2,048 candidates
local MAX_DEPTH = 16  -- {"inputs": {"candidates": [["id"]]}} is 4
local DTYPES = { [1] = true, [7] = true, [9] = true, [10] = true }  -- float string int64 bool

local VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

-- A varint at `at`, as a number: exact to 2^53, and larger ones are over every limit.
local function varint(text, at, last)
  local value, scale = 0, 1
  for i = at, math.min(at + 9, last) do
    local byte = text:byte(i)
    value = value + (byte % 128) * scale
    if byte < 128 then return value, i + 1 end
    scale = scale * 128
  end
  error("a varint without an end", 0)
end

-- Calls visit(number, wire type, value) for each field in text[at..last]; the value of a field of
-- bytes is its first and last position.
local function fields(text, at, last, visit)
  while at <= last do
    local tag, value
    tag, at = varint(text, at, last)
    local wire = tag % 8
    local number = (tag - wire) / 8
    if number < 1 or number > 536870911 then error("a field without a number", 0) end
    if wire == VARINT then
      value, at = varint(text, at, last)
      visit(number, wire, value)
    elseif wire == BYTES then
      value, at = varint(text, at, last)
      if at + value - 1 > last then error("a field over its end", 0) end
      visit(number, wire, at, at + value - 1)
      at = at + value
    elseif wire == FIXED64 then
      at = at + 8
    elseif wire == FIXED32 then
      at = at + 4
    else
      error("a group", 0)
    end
  end
  if at ~= last + 1 then error("a field over its end", 0) end
end

-- Fields that protobuf merges are merged here: of the dtypes every one must be known, and the
-- dimensions of all shapes are one shape's.
local function check_tensor(text, first, last, seen)
  fields(text, first, last, function(number, wire, a, b)
    if number == 1 and wire == VARINT then  -- dtype
      if not DTYPES[a] then error("a tensor of dtype " .. a, 0) end
      seen.dtype = true
    elseif number == 2 and wire == BYTES then  -- tensor_shape
      fields(text, a, b, function(part, kind, c, d)
        if part == 3 then error("a tensor of unknown rank", 0) end
        if part ~= 2 or kind ~= BYTES then return end
        local size = 0
        fields(text, c, d, function(what, how, length)
          if what == 1 and how == VARINT then size = length end
        end)
        if size > MAX_ELEMENTS then error("a dimension of " .. size, 0) end
        seen.elements = seen.elements * math.max(size, 1)
        if seen.elements > MAX_ELEMENTS then error("a tensor of " .. seen.elements, 0) end
      end)
    elseif number == 14 or number == 15 then  -- resource_handle_val, variant_val
      error("a handle", 0)
    end
  end)
end

local function check_predict(text)
  if text:byte(1) ~= 0 then error("a compressed message", 0) end
  local length = 0
  for i = 2, 5 do length = length * 256 + (text:byte(i) or 0) end
  if #text ~= length + 5 then error("not one message", 0) end
  fields(text, 6, #text, function(number, wire, first, last)
    if number ~= 2 or wire ~= BYTES then return end  -- inputs: name = 1, tensor = 2
    local seen = { elements = 1 }
    fields(text, first, last, function(part, kind, a, b)
      if part == 2 and kind == BYTES then check_tensor(text, a, b, seen) end
    end)
    if not seen.dtype then error("a tensor without a dtype", 0) end
  end)
end

local function check_json(text)
  local depth, at = 0, 1
  while true do
    at = text:find('["%[%]{}]', at)
    if at == nil then return end
    local sign = text:sub(at, at)
    if sign == '"' then
      repeat  -- to the end of the string, over what is escaped
        at = text:find('["\\]', at + 1)
        if at == nil then error("a string without an end", 0) end
        local ends = text:sub(at, at) == '"'
        if not ends then at = at + 1 end
      until ends
    elseif sign == "[" or sign == "{" then
      depth = depth + 1
      if depth > MAX_DEPTH then error("JSON nested over " .. MAX_DEPTH, 0) end
    else
      depth = depth - 1
    end
    at = at + 1
  end
end

function envoy_on_request(request)
  local headers = request:headers()  -- not to be used after body(), which waits
  local path = headers:get(":path")
  local is_grpc = (headers:get("content-type") or ""):find("^application/grpc") ~= nil
  local encoding = headers:get("content-encoding") or headers:get("grpc-encoding") or "identity"
  local buffer = request:body(true)
  local ok, why = pcall(function()
    if encoding ~= "identity" then error("a compressed body", 0) end
    if buffer == nil or buffer:length() == 0 then return end
    local text = buffer:getBytes(0, buffer:length())
    if not is_grpc then
      check_json(text)
    elseif path == "/tensorflow.serving.PredictionService/Predict" then
      check_predict(text)
    end
  end)
  if ok then return end
  if is_grpc then
    request:respond({
      [":status"] = "200", ["content-type"] = "application/grpc",
      ["grpc-status"] = "3", ["grpc-message"] = "refused by the proxy: " .. why,
    }, "")
  else
    request:respond({ [":status"] = "400", ["content-type"] = "application/json" },
      '{"error": "refused by the proxy: ' .. why .. '"}')
  end
end
