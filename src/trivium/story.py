"""What the demo says, in English and in Chinese, and what it asks the starters."""

# By task and language of a starter's card.
ASKED = {
    (
        "summarization",
        "en",
    ): "Tessel is a fast image viewer for X11 and Wayland. It opens JPEG, PNG, WebP and raw files, "
    "shows thumbnails of a whole folder, and can be driven by the keyboard alone.",
    ("fill-mask", "en"): "The function returns the [MASK] of the file.",
    ("text-generation", "zh"): "《春夜》李白 五言绝句",
}

STORY = {
    "hello": (
        "\ntrivium: the encoder reads, the decoder writes, the encoder-decoder rewrites.",
        "\ntrivium(三艺):编码器阅读,解码器书写,编码器-解码器改写。",
    ),
    "starter": ("\n  {name}: {asked}\n  → {answer}", "\n  {name}:{asked}\n  → {answer}"),
    "machine": (
        "\nMachine: {name} ({kind}), {cores} cores, computing in {dtype}.",
        "\n机器:{name}({kind}),{cores} 个核心,以 {dtype} 计算。",
    ),
    "text_python": (
        "Text: the documentation inside this Python installation (your own: --text PATH).",
        "文本:本机 Python 自带的文档(换成你自己的:--text 路径)。",
    ),
    "text_own": ("Text: {path}", "文本:{path}"),
    "split": (
        "Training on {train_documents:,} documents, {train_megabytes:.1f} MB, {train_tokens:,} tokens. Held out before "
        "anything was learned:\n{valid_documents:,} documents, {valid_kilobytes:.0f} kB; {near} look-alikes of them "
        "left the training text.",
        "训练文本:{train_documents:,} 篇,{train_megabytes:.1f} MB,{train_tokens:,} 个词元。学习之前先留出测试文本:\n"
        "{valid_documents:,} 篇,{valid_kilobytes:.0f} kB;与之雷同的 {near} 篇已从训练文本中剔除。",
    ),
    "writer": (
        "\n1. The writer: a decoder learns to continue text ({minutes:.1f} minutes).",
        "\n一、书写者:解码器学习续写({minutes:.1f} 分钟)。",
    ),
    "sample": ("  after {progress:>4}: “{prompt}” → {text}", "  训练 {progress:>4}:“{prompt}” → {text}"),
    "writer_result": (
        "  Held-out loss {loss:.2f} nats per token, {bits:.2f} bits per byte; token frequency alone gives "
        "{frequency:.2f} and {frequency_bits:.2f}.\n  {tokens:,} tokens read, {speed:,.0f} a second.",
        "  留出文本上的损失:每词元 {loss:.2f} 奈特,每字节 {bits:.2f} 比特;仅凭词频为 {frequency:.2f} 与 "
        "{frequency_bits:.2f}。\n  共读 {tokens:,} 个词元,每秒 {speed:,.0f} 个。",
    ),
    "reader": (
        "\n2. The reader: an encoder learns to fill in masked words ({minutes:.1f} minutes).",
        "\n二、阅读者:编码器学习填补被遮住的词({minutes:.1f} 分钟)。",
    ),
    "reader_result": (
        "  Masked tokens of held-out text guessed right: {accuracy:.1%}; always the most frequent token: "
        "{baseline:.1%}.\n  The held-out sentences that it is surest of:",
        "  留出文本中被遮词元猜对 {accuracy:.1%};总猜最常见的词元只有 {baseline:.1%}。\n  它最有把握的几句留出文本:",
    ),
    "mask": (
        "    {text}\n      it says {guesses}   (it was {truth!r})",
        "    {text}\n      它猜 {guesses}(原文 {truth!r})",
    ),
    "rewriter": (
        "\n3. The rewriter: an encoder-decoder learns to fill whole gaps, reading both sides ({minutes:.1f} minutes).",
        "\n三、改写者:编码器-解码器阅读两侧,学习填补整段空缺({minutes:.1f} 分钟)。",
    ),
    "rewriter_result": (
        "  On {score.gaps:,} gaps in held-out text:\n"
        "                                        tokens right   whole gap right\n"
        "    the rewriter, which sees both sides  {score.token_accuracy:>10.1%}   {score.exact:>12.1%}\n"
        "    the writer, which sees the left side {left.token_accuracy:>10.1%}   {left.exact:>12.1%}\n"
        "    the most frequent token or span      {baseline.token_accuracy:>10.1%}   {baseline.exact:>12.1%}\n"
        "  (The writer has learned from every word that it read, the rewriter from gaps alone.)\n"
        "  The held-out gaps that it is surest of:",
        "  留出文本中的 {score.gaps:,} 处空缺:\n"
        "                          词元正确    整段正确\n"
        "    改写者(看两侧)       {score.token_accuracy:>8.1%}    {score.exact:>8.1%}\n"
        "    书写者(只看左侧)     {left.token_accuracy:>8.1%}    {left.exact:>8.1%}\n"
        "    最常见的词元或片段     {baseline.token_accuracy:>8.1%}    {baseline.exact:>8.1%}\n"
        "  (书写者从读到的每个词学习,改写者只从空缺处学习。)\n"
        "  它最有把握的几处:",
    ),
    "gap": (
        "    {text}\n      it says {answer!r}   (it was {truth!r})",
        "    {text}\n      它填 {answer!r}(原文 {truth!r})",
    ),
    "end": (
        "\nThree ordinary Hugging Face folders:\n  {decoder}\n  {encoder}\n  {encoder_decoder}\n"
        "Open the report in a browser: {report}\nFigures for machines: {json}\n\nNext:\n"
        "  trivium generate {decoder} {prompt}\n"
        "  trivium generate {encoder} {masked}\n"
        "  trivium pretrain {recipe} run=runs/longer --minutes 30",
        "\n三个普通的 Hugging Face 模型目录:\n  {decoder}\n  {encoder}\n  {encoder_decoder}\n"
        "用浏览器打开报告:{report}\n供程序读取的数字:{json}\n\n接下来可以输入:\n"
        "  trivium generate {decoder} {prompt}\n"
        "  trivium generate {encoder} {masked}\n"
        "  trivium pretrain {recipe} run=runs/longer --minutes 30",
    ),
}
