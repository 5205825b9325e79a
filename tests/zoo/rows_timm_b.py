"""Where the definitions in timm put residual and Inception joins, read from the source by hand (second half)."""

# class: (block, above) -> the channels of each gate, in the order of execution
from torch import nn
from torch.nn.modules.conv import _ConvNd


def has_conv(module):
    """Does the module, or anything below it, convolve?"""
    return module is not None and any(isinstance(m, _ConvNd) for m in module.modules())


def last_conv(module):
    """The output channels of the convolution that is defined last in the module."""
    return [m for m in module.modules() if isinstance(m, _ConvNd)][-1].out_channels


def no_se(module):
    """Is the place of an SE module empty?"""
    return module is None or isinstance(module, nn.Identity)


def ends(block, *names):
    """The sum of the channels of an Inception block's paths, each named by its last module(s)."""
    return sum(last_conv(getattr(block, n)) for n in names)


def levit_block(b, above):
    """Attention and MLP, both of 1x1 convolutions where use_conv is set, else of Linear only."""
    if not b.attn.use_conv:
        return []
    return [last_conv(b.attn.proj), last_conv(b.mlp.ln2)]


def lowformer_residual(b, above):
    """The main path always convolves; without a shortcut there is no add."""
    return [] if b.shortcut is None else [last_conv(b.main)]


def meta_former(b, above):
    """A SepConv mixer convolves, pooling and attention do not; the MLP is of 1x1 convolutions in the NCHW stages."""
    gates = [last_conv(b.token_mixer)] if has_conv(b.token_mixer) else []
    return gates + ([b.mlp.fc2.out_channels] if has_conv(b.mlp) else [])


def pvt_v2_block(b, above):
    """Attention convolves where it reduces the keys; the MLP holds a depthwise convolution always."""
    gates = [b.attn.proj.out_features] if b.attn.sr is not None else []
    return [*gates, b.mlp.fc2.out_features]


def rep_ghost_bottleneck(b, above):
    """Only an empty shortcut is linear in one convolution; that the last layer is a sum inside does not matter."""
    if b.se is not None or len(b.shortcut):
        return []
    return [b.ghost2.out_chs]


def twins_block(b, above):
    """Only the global attention holds a convolution (sr), and only where it reduces; the MLP is Linear."""
    return [b.attn.proj.out_features] if has_conv(b.attn) else []


def visformer_block(b, above):
    """Both attention (where there is one) and MLP are of convolutions."""
    return ([] if b.attn is None else [b.attn.proj.out_channels]) + [b.mlp.conv3.out_channels]


ROWS = {
    # --- inception_resnet_v2, inception_v3, inception_v4 (ConvNormAct: .conv; pool paths keep the input's channels)
    "timm.models.inception_resnet_v2.Mixed_7a": lambda b, above: [
        ends(b, "branch0", "branch1", "branch2") + b.branch0[0].conv.in_channels
    ],
    "timm.models.inception_v3.InceptionA": lambda b, above: [
        ends(b, "branch1x1", "branch5x5_2", "branch3x3dbl_3", "branch_pool")
    ],
    "timm.models.inception_v3.InceptionB": lambda b, above: [
        ends(b, "branch3x3", "branch3x3dbl_3") + b.branch3x3.conv.in_channels
    ],
    "timm.models.inception_v3.InceptionC": lambda b, above: [
        ends(b, "branch1x1", "branch7x7_3", "branch7x7dbl_5", "branch_pool")
    ],
    "timm.models.inception_v3.InceptionD": lambda b, above: [
        ends(b, "branch3x3_2", "branch7x7x3_4") + b.branch3x3_1.conv.in_channels
    ],
    "timm.models.inception_v3.InceptionE": lambda b, above: [  # the two inner concats are parts of paths
        ends(b, "branch1x1", "branch3x3_2a", "branch3x3_2b", "branch3x3dbl_3a", "branch3x3dbl_3b", "branch_pool")
    ],
    "timm.models.inception_v4.InceptionA": lambda b, above: [ends(b, "branch0", "branch1", "branch2", "branch3")],
    "timm.models.inception_v4.InceptionB": lambda b, above: [ends(b, "branch0", "branch1", "branch2", "branch3")],
    "timm.models.inception_v4.InceptionC": lambda b, above: [  # the two inner concats are parts of paths
        ends(b, "branch0", "branch1_1a", "branch1_1b", "branch2_3a", "branch2_3b", "branch3")
    ],
    "timm.models.inception_v4.Mixed3a": lambda b, above: [],  # max-pool and one convolution: a single conv path
    "timm.models.inception_v4.Mixed4a": lambda b, above: [ends(b, "branch0", "branch1")],
    "timm.models.inception_v4.Mixed5a": lambda b, above: [],  # max-pool and one convolution: a single conv path
    "timm.models.inception_v4.ReductionA": lambda b, above: [
        ends(b, "branch0", "branch1") + b.branch0.conv.in_channels
    ],
    "timm.models.inception_v4.ReductionB": lambda b, above: [
        ends(b, "branch0", "branch1") + b.branch0[0].conv.in_channels
    ],
    # --- lcnetv2: the sum of depthwise branches is of alike paths, and act + 1x1 conv follow before the outer add
    "timm.models.lcnetv2.RepDepthwiseSeparable": lambda b, above: [b.out_chs] if b.use_shortcut and no_se(b.se) else [],
    # --- levit
    "timm.models.levit.Attention": lambda b, above: [],  # adds attention biases only
    "timm.models.levit.AttentionDownsample": lambda b, above: [],  # adds attention biases only
    "timm.models.levit.LevitBlock": levit_block,
    "timm.models.levit.LevitDownsample": lambda b, above: [last_conv(b.mlp.ln2)] if has_conv(b.mlp) else [],
    # --- lowformer
    "timm.models.lowformer.ResidualBlock": lowformer_residual,
    # --- mambaout: gate by another activation is no channel gate
    "timm.models.mambaout.GatedConvBlock": lambda b, above: [b.fc2.out_features],
    # --- maxxvit
    "timm.models.maxxvit.Attention2d": lambda b, above: [],  # adds attention biases only
    "timm.models.maxxvit.AttentionCl": lambda b, above: [],  # adds attention biases only
    "timm.models.maxxvit.ConvNeXtBlock": lambda b, above: [b.conv_dw.out_channels],
    "timm.models.maxxvit.MbConvBlock": lambda b, above: (
        [b.conv3_1x1.out_channels] if no_se(b.se_early) and no_se(b.se) else []
    ),
    "timm.models.maxxvit.ParallelPartitionAttention": lambda b, above: [],  # Linear only
    "timm.models.maxxvit.PartitionAttention2d": lambda b, above: [b.attn.proj.out_channels, b.mlp.fc2.out_channels],
    "timm.models.maxxvit.PartitionAttentionCl": lambda b, above: [],  # Linear only
    # arguable (stride 2 with pool_type 'max', coatnet_[0-5]_224): the shortcut is a 1x1 conv of the max-pooled input,
    # pooled and projected, if not linear as a whole
    "timm.models.maxxvit.TransformerBlock2d": lambda b, above: [b.attn.proj.out_channels, b.mlp.fc2.out_channels],
    # --- metaformer: Scale on the identity is a per-channel factor, still linear; Pooling's own y - x has no conv
    "timm.models.metaformer.MetaFormerBlock": meta_former,
    "timm.models.metaformer.Pooling": lambda b, above: [],  # y - x of a pooling, no convolution
    # --- mobilenetv5: the concat is of inputs and goes into the FFN
    "timm.models.mobilenetv5.MobileNetV5MultiScaleFusionAdapter": lambda b, above: [],
    # --- mobilevit
    "timm.models.mobilevit.LinearSelfAttention": lambda b, above: [],  # no add
    # arguable: relu(value) * context_vector, a softmax-weighted mean over the patches, modulates the channels; taken
    # as attention with convolutions for projections, not as a channel gate
    "timm.models.mobilevit.LinearTransformerBlock": lambda b, above: [
        b.attn.out_proj.out_channels,
        b.mlp.fc2.out_channels,
    ],
    "timm.models.mobilevit.MobileVitBlock": lambda b, above: [],  # no add; conv_fusion(cat(input, path)) is no join
    "timm.models.mobilevit.MobileVitV2Block": lambda b, above: [],  # no add
    # --- mvitv2: x + q (residual pooling) stands inside the attention
    "timm.models.mvitv2.MultiScaleAttention": lambda b, above: [],
    "timm.models.mvitv2.MultiScaleAttentionPoolFirst": lambda b, above: [],
    # convolutional pools of q, k, v in the attention; the MLP is Linear; the identity is bare, or Linear of the
    # normed input and max-pooled. arguable: max-pool after the projection, where both are there
    "timm.models.mvitv2.MultiScaleBlock": lambda b, above: [b.attn.proj.out_features] if has_conv(b.attn) else [],
    # --- naflexvit: adds of positional encodings that are parameters
    "timm.models.naflexvit.NaFlexEmbeds": lambda b, above: [],
    "timm.models.naflexvit.NaFlexVit": lambda b, above: [],
    # --- nasnet: sums of parallel paths, of two inputs or alike; the concats hold inputs of other paths.
    "timm.models.nasnet.CellStem0": lambda b, above: [],  # comb_iter_1 is in the concat and in comb_iter_3
    "timm.models.nasnet.CellStem1": lambda b, above: [],  # two inputs; and as CellStem0
    # arguable: comb_iter_4 = separable convs(x_right) + x_right is residual by rule 1, but rule 2 names the cells
    "timm.models.nasnet.FirstCell": lambda b, above: [],  # two inputs; x_left is in the concat and in other paths
    "timm.models.nasnet.NormalCell": lambda b, above: [],  # arguable: as FirstCell
    # ReductionCells: the pooled identities meet convs of the other input or of comb_iter_0
    "timm.models.nasnet.ReductionCell0": lambda b, above: [],  # two inputs; and as CellStem0
    "timm.models.nasnet.ReductionCell1": lambda b, above: [],  # two inputs; and as CellStem0
    # --- nest
    "timm.models.nest.NestLevel": lambda b, above: [],  # adds a positional encoding, a parameter
    "timm.models.nest.TransformerLayer": lambda b, above: [],  # Linear only
    # --- nextvit
    "timm.models.nextvit.NextConvBlock": lambda b, above: [b.mhca.projection.out_channels, b.mlp.fc2.out_channels],
    # the first add is of Linear-only attention (keys reduced by AvgPool1d); the concat goes on into norm and MLP
    "timm.models.nextvit.NextTransformerBlock": lambda b, above: [
        b.mhca.projection.out_channels,
        b.mlp.fc2.out_channels,
    ],
    # --- nfnet: the shortcut is the input, or avg-pool + conv of the activated input, from which the branch starts too
    "timm.models.nfnet.NormFreeBlock": lambda b, above: (
        [b.conv3.out_channels] if no_se(b.attn) and no_se(b.attn_last) else []
    ),
    # --- pnasnet: as nasnet. arguable: comb_iter_0 and _1 = separable convs(x) + max-pool(x) are residual with a
    # pooled identity by rule 1, but rule 2 names the cells; comb_iter_2 is in the concat and in comb_iter_3
    "timm.models.pnasnet.Cell": lambda b, above: [],
    "timm.models.pnasnet.CellBase": lambda b, above: [],  # abstract: the forward of the two cells
    "timm.models.pnasnet.CellStem0": lambda b, above: [],  # arguable: as Cell, with pool + conv + norm of the input
    "timm.models.pnasnet.FactorizedReduction": lambda b, above: [],  # returns bn(cat), not the cat
    # --- pvt_v2
    "timm.models.pvt_v2.Block": pvt_v2_block,
    # --- qwen3_vit
    "timm.models.qwen3_vit.Qwen3VitEncoder": lambda b, above: [],  # adds a positional encoding, a parameter
    # --- rdnet
    "timm.models.rdnet.DenseBlock": lambda b, above: [],  # the concat is of its inputs
    "timm.models.rdnet.DenseStage": lambda b, above: [],  # dense
    # --- regnet: downsample None is no shortcut at all
    "timm.models.regnet.Bottleneck": lambda b, above: (
        [b.conv3.conv.out_channels] if b.downsample is not None and no_se(b.se) else []
    ),
    "timm.models.regnet.PreBottleneck": lambda b, above: (  # identity and branch both start from norm1's output
        [b.conv3.out_channels] if b.downsample is not None and no_se(b.se) else []
    ),
    # --- repghost. arguable: with re-parameterizable branches the residual's branch ends in ghost2's sum of alike
    # paths with only an Identity after it, so the outer add is refused (rule 2); the projection shortcut has two
    # convolutions in depth, so it is no identity (rule 1)
    "timm.models.repghost.RepGhostBottleneck": rep_ghost_bottleneck,
    "timm.models.repghost.RepGhostModule": lambda b, above: [],  # alike paths: depthwise conv and identity-BN
    # --- repvit
    "timm.models.repvit.RepVggDw": lambda b, above: [],  # alike paths
    "timm.models.repvit.RepViTBlock": lambda b, above: [  # the SE stands before the residual, not in its branch
        b.channel_mixer.conv2.c.out_channels
    ],
    "timm.models.repvit.RepVitClassifier": lambda b, above: [],  # mean of two Linear heads
    "timm.models.repvit.RepVitDownsample": lambda b, above: [b.ffn.conv2.c.out_channels],
    # --- res2net: the inner sums are between parts of a split
    "timm.models.res2net.Bottle2neck": lambda b, above: [b.conv3.out_channels] if no_se(b.se) else [],
    # --- resnest: radix 0 is without split attention
    "timm.models.resnest.ResNestBottleneck": lambda b, above: [b.conv3.out_channels] if b.radix < 1 else [],
    # --- resnet
    "timm.models.resnet.BasicBlock": lambda b, above: [b.conv2.out_channels] if no_se(b.se) else [],
    "timm.models.resnet.Bottleneck": lambda b, above: [b.conv3.out_channels] if no_se(b.se) else [],
    # --- resnetv2: a projection starts from norm1's output, as the branch does
    "timm.models.resnetv2.Bottleneck": lambda b, above: [b.conv3.out_channels],
    "timm.models.resnetv2.PreActBasic": lambda b, above: [b.conv2.out_channels],
    "timm.models.resnetv2.PreActBottleneck": lambda b, above: [b.conv3.out_channels],
    # --- rexnet: partial residual, gate on the whole output
    "timm.models.rexnet.LinearBottleneck": lambda b, above: (
        [b.conv_pwl.conv.out_channels] if b.use_shortcut and no_se(b.se) else []
    ),
    # --- selecsls
    "timm.models.selecsls.SelecSlsBlock": lambda b, above: [],  # conv6(cat) of a chain's values: dense, and no join
    "timm.models.selecsls.SelectSeq": lambda b, above: [],  # concat of its inputs
    # --- senet: all with an SE module
    "timm.models.senet.Bottleneck": lambda b, above: [],  # abstract, with SE
    "timm.models.senet.SEBottleneck": lambda b, above: [],
    "timm.models.senet.SEResNeXtBottleneck": lambda b, above: [],
    "timm.models.senet.SEResNetBlock": lambda b, above: [],
    "timm.models.senet.SEResNetBottleneck": lambda b, above: [],
    # --- shvit: around a depthwise conv, an attention of 1x1 convs, or an FFN of 1x1 convs
    "timm.models.shvit.Residual": lambda b, above: [last_conv(b.m)],
    "timm.models.shvit.SHSA": lambda b, above: [],  # no add; the concat re-joins a split
    # --- sknet: a selective kernel in every branch
    "timm.models.sknet.SelectiveKernelBasic": lambda b, above: [],
    "timm.models.sknet.SelectiveKernelBottleneck": lambda b, above: [],
    # --- starnet: the product of the two paths is no channel gate
    "timm.models.starnet.Block": lambda b, above: [b.dwconv2.conv.out_channels],
    # --- swiftformer
    "timm.models.swiftformer.Block": lambda b, above: [  # the first add is of Linear-only attention
        b.linear.fc2.out_channels
    ],
    "timm.models.swiftformer.ConvEncoder": lambda b, above: [b.pwconv2.out_channels],
    "timm.models.swiftformer.EfficientAdditiveAttention": lambda b, above: [],  # Linear only, inside attention
    "timm.models.swiftformer.LocalRepresentation": lambda b, above: [b.pwconv2.out_channels],
    # --- tiny_vit
    "timm.models.tiny_vit.Attention": lambda b, above: [],  # adds attention biases only
    "timm.models.tiny_vit.MBConv": lambda b, above: [b.conv3.conv.out_channels],
    "timm.models.tiny_vit.TinyVitBlock": lambda b, above: [],  # Linear branches; local_conv stands outside the adds
    # --- tnt
    "timm.models.tnt.Block": lambda b, above: [],  # Linear only
    "timm.models.tnt.PixelEmbed": lambda b, above: [],  # adds a positional encoding, a parameter
    # --- tresnet
    "timm.models.tresnet.BasicBlock": lambda b, above: [b.conv2.conv.out_channels] if no_se(b.se) else [],
    "timm.models.tresnet.Bottleneck": lambda b, above: [b.conv3.conv.out_channels] if no_se(b.se) else [],
    # --- twins
    "timm.models.twins.Block": twins_block,
    "timm.models.twins.GlobalSubSampleAttn": lambda b, above: [],  # no add
    "timm.models.twins.PosConv": lambda b, above: (  # conditional positional encoding, x + conv(x)
        [b.proj[0].out_channels] if b.stride == 1 else []
    ),
    "timm.models.twins.Twins": lambda b, above: [],  # no joins of its own
    # --- vgg
    "timm.models.vgg.ConvMlp": lambda b, above: [],  # no add
    # --- visformer
    "timm.models.visformer.Block": visformer_block,
    "timm.models.visformer.Visformer": lambda b, above: [],  # adds positional encodings, parameters
    # --- vision_transformer
    "timm.models.vision_transformer.Block": lambda b, above: [],  # Linear only
    "timm.models.vision_transformer.DiffParallelScalingBlock": lambda b, above: [],  # Linear only
    "timm.models.vision_transformer.ParallelScalingBlock": lambda b, above: [],  # Linear only
    "timm.models.vision_transformer.ParallelThingsBlock": lambda b, above: [],  # Linear only
    "timm.models.vision_transformer.ResPostBlock": lambda b, above: [],  # Linear only
    "timm.models.vision_transformer.VisionTransformer": lambda b, above: [],  # adds a positional parameter
    # --- vision_transformer_sam
    "timm.models.vision_transformer_sam.Attention": lambda b, above: [],  # adds attention biases only
    "timm.models.vision_transformer_sam.Block": lambda b, above: [],  # Linear only
    "timm.models.vision_transformer_sam.VisionTransformerSAM": lambda b, above: [],  # adds a positional parameter
    # --- vitamin
    "timm.models.vitamin.MbConvLNBlock": lambda b, above: [b.conv3_1x1.out_channels],
    # --- vovnet
    "timm.models.vovnet.OsaBlock": lambda b, above: (
        [b.conv_concat.conv.out_channels] if b.residual and no_se(b.attn) else []
    ),
    "timm.models.vovnet.SequentialAppendList": lambda b, above: [],  # dense: the input and every value of a chain
    # --- xception, xception_aligned
    "timm.models.xception.Block": lambda b, above: [last_conv(b.rep)],
    "timm.models.xception_aligned.PreXceptionModule": lambda b, above: [] if b.no_skip else [b.out_channels],
    "timm.models.xception_aligned.XceptionModule": lambda b, above: [] if b.no_skip else [b.out_channels],
    # --- xcit
    "timm.models.xcit.ClassAttentionBlock": lambda b, above: [],  # Linear only
    "timm.models.xcit.PositionalEncodingFourier": lambda b, above: [],  # no add; projects a fixed code
    "timm.models.xcit.XCABlock": lambda b, above: [b.local_mp.conv2.out_channels],  # attention and MLP are Linear
    # adds a conv of a sine code that does not come from x: not one common value
    "timm.models.xcit.Xcit": lambda b, above: [],
}
