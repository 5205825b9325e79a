"""Where the definitions in timm put residual and Inception joins, read from the source by hand."""

# class: (block, above) -> the channels of each gate, in the order of execution
from torch import nn

CHANNEL_GATES = (
    "SEModule SqueezeExcite EffectiveSEModule EseModule EcaModule CecaModule CbamModule LightCbamModule GatherExcite"
    " SelectiveKernel SplitAttn CoordAttn SimpleCoordAttn"
).split()


def gated(*modules):
    """Whether one of these attention slots of a block holds a channel gate (Identity, BAT, lambda, ... are none)."""
    for m in modules:
        name = type(m).__name__
        if name in CHANNEL_GATES or (name == "GlobalContext" and m.mlp_scale is not None):
            return True  # "gca" (GlobalContext with fuse_add only) adds its context and multiplies nothing: no gate
    return False


def last_conv(module):
    """Output channels of the last convolution defined in a module (here also the last one executed)."""
    return [m for m in module.modules() if isinstance(m, nn.modules.conv._ConvNd)][-1].out_channels


def dual_path(b, above):
    """DPN: out1 is added to the first channels of x, out2 is concatenated beside."""
    if b.has_proj:
        return []  # identity is bn -> relu -> conv of x with a norm and an activation of its own: no linear projection
    if b.c1x1_c1 is not None:
        return [b.num_1x1_c]  # b=True: out1 has a convolution of its own, all of whose output is added
    return [b.num_1x1_c + b.inc]


def mobile_attention(b, above):
    """MobileNet-V4: conditional positional encoding, then attention with convolutional projections."""
    cpe = [] if b.conv_cpe_dw is None else [b.conv_cpe_dw.out_channels]
    return cpe + ([last_conv(b.attn)] if b.has_skip else [])


def vim(b, above):
    """EfficientViM block: x + alpha * (f(x) - x), four times; the two depthwise ones go when fused."""
    dim = b.ffn.fc2.conv.out_channels
    return [dim] * (2 if b.fused else 4)


def ghost(b, above):
    """GhostNet V1 to V3: the projecting shortcut is two convolutions deep (depthwise, then 1x1), so no identity."""
    return [] if len(list(b.shortcut.children())) or gated(b.se) else [b.ghost2.out_chs]


def byob(last):
    """Residual block of byobnet whose last ConvNormAct is named so."""
    return lambda b, above: (
        []
        if b.shortcut is None or gated(getattr(b, "attn", None), getattr(b, "attn_last", None))
        else [getattr(b, last).conv.out_channels]
    )


def csp(last, *attns):
    """Residual block of cspnet whose last ConvNormAct is named so."""
    return lambda b, above: [] if gated(*(getattr(b, a) for a in attns)) else [getattr(b, last).conv.out_channels]


def mbconv(last):
    """Residual block of the EfficientNet family whose last convolution is named so."""
    return lambda b, above: [getattr(b, last).out_channels] if b.has_skip and not gated(getattr(b, "se", None)) else []


ROWS = {
    # context modulation: the add (fuse_add) is gate machinery
    "timm.layers.global_context.GlobalContext": lambda b, above: [],
    "timm.layers.halo_attn.HaloAttn": lambda b, above: [],  # adds positional logits only
    "timm.layers.hybrid_embed.HybridEmbed": lambda b, above: [],  # container
    "timm.layers.hybrid_embed.HybridEmbedWithSize": lambda b, above: [],  # container
    "timm.layers.lambda_layer.LambdaLayer": lambda b, above: [],  # content + position, attention arithmetic
    "timm.layers.mixed_conv2d.MixedConv2d": lambda b, above: [],  # re-joins the parts of a split value
    # arguable: y + x is the attention module's own residual
    "timm.layers.non_local_attn.BatNonLocalAttn": lambda b, above: [b.conv2.conv.out_channels],
    "timm.layers.non_local_attn.BilinearAttnTransform": lambda b, above: [],  # no add
    # arguable: z(...) + x is the attention module's own residual
    "timm.layers.non_local_attn.NonLocalAttn": lambda b, above: [b.norm.num_features],
    "timm.layers.pos_embed_sincos.RotaryEmbeddingMixed": lambda b, above: [],  # positions
    "timm.models._efficientnet_blocks.CondConvResidual": mbconv("conv_pwl"),
    "timm.models._efficientnet_blocks.ConvBnAct": mbconv("conv"),
    "timm.models._efficientnet_blocks.DepthwiseSeparableConv": mbconv("conv_pw"),
    "timm.models._efficientnet_blocks.EdgeResidual": mbconv("conv_pwl"),
    "timm.models._efficientnet_blocks.InvertedResidual": mbconv("conv_pwl"),
    "timm.models._efficientnet_blocks.MobileAttention": mobile_attention,
    # the branch may go on with dw_end, of the same channels
    "timm.models._efficientnet_blocks.UniversalInvertedResidual": lambda b, above: (
        [b.pw_proj.conv.out_channels] if b.has_skip and not gated(b.se) else []
    ),
    "timm.models._features.FeatureDictNet": lambda b, above: [],  # container
    "timm.models._features.FeatureListNet": lambda b, above: [],  # container
    "timm.models.byobnet.BasicBlock": byob("conv2_kxk"),
    # arguable with "gca": its context is added, not multiplied, so no channel gate
    "timm.models.byobnet.BottleneckBlock": byob("conv3_1x1"),
    "timm.models.byobnet.DarkBlock": byob("conv2_kxk"),
    "timm.models.byobnet.EdgeBlock": byob("conv2_1x1"),
    "timm.models.byobnet.MobileOneBlock": lambda b, above: [],  # alike paths
    "timm.models.byobnet.RepVggBlock": lambda b, above: [],  # alike paths
    "timm.models.byobnet.SelfAttnBlock": byob("conv3_1x1"),
    "timm.models.coat.CoaT": lambda b, above: [],  # whole model
    "timm.models.coat.ConvPosEnc": lambda b, above: [b.proj.out_channels],
    "timm.models.coat.ConvRelPosEnc": lambda b, above: [],  # re-joins the parts of a split value, then multiplies
    "timm.models.coat.FactorAttnConvRelPosEnc": lambda b, above: [],  # attention arithmetic
    # arguable: x2 + (cur2 + upsampled cur3 + cur4): the branch is a sum of streams; MLPs are Linear
    "timm.models.coat.ParallelBlock": lambda b, above: [],
    # arguable: conv of the attention sits in its relative positions
    "timm.models.coat.SerialBlock": lambda b, above: [b.factoratt_crpe.proj.out_features],
    "timm.models.convmixer.Residual": lambda b, above: [last_conv(b.fn)],
    # GRN (V2): gated
    "timm.models.convnext.ConvNeXtBlock": lambda b, above: [] if hasattr(b.mlp, "grn") else [b.conv_dw.out_channels],
    "timm.models.cpubone.CPUBoneBlock": lambda b, above: [],  # container of ResidualBlocks
    "timm.models.cpubone.ConvAttention": lambda b, above: [],  # no add
    "timm.models.cpubone.ResidualBlock": lambda b, above: [] if b.shortcut is None else [last_conv(b.main)],
    "timm.models.crossvit.CrossAttentionBlock": lambda b, above: [],  # Linear only
    "timm.models.crossvit.CrossVit": lambda b, above: [],  # whole model, adds positions
    "timm.models.crossvit.MultiScaleBlock": lambda b, above: [],  # concats of tokens
    "timm.models.csatv2.Block": lambda b, above: [],  # gated by GRN
    # arguable: re-joins Y, Cb, Cr, parts of one value, each convolved
    "timm.models.csatv2.LearnableDct2d": lambda b, above: [],
    # arguable where it has 1 channel, inside the spatial gate
    "timm.models.csatv2.PosConv": lambda b, above: [b.proj.out_channels],
    "timm.models.csatv2.SpatialAttention": lambda b, above: [],  # makes the map of a spatial gate, no add
    # arguable: inside the spatial gate, 1 channel; MLP Linear
    "timm.models.csatv2.SpatialTransformerBlock": lambda b, above: [],  # attention in the forward itself, a gate's part
    # attention behind PosConv; the MLP is Linear
    "timm.models.csatv2.TransformerBlock": lambda b, above: [b.norm2.normalized_shape[0]],
    "timm.models.cspnet.BottleneckBlock": csp("conv3", "attn2", "attn3"),
    "timm.models.cspnet.CrossStage": lambda b, above: [],  # re-joins a split, conv after the cat
    "timm.models.cspnet.CrossStage3": lambda b, above: [],  # re-joins a split, conv after the cat
    "timm.models.cspnet.DarkBlock": csp("conv2", "attn"),
    "timm.models.cspnet.DarkStage": lambda b, above: [],  # container
    "timm.models.cspnet.EdgeBlock": csp("conv2", "attn"),
    "timm.models.cspnext.CspNextBlock": lambda b, above: (
        [b.conv2.pointwise_conv.conv.out_channels] if b.add_identity else []
    ),
    "timm.models.cspnext.CspNextLayer": lambda b, above: [],  # attention and conv after the cat
    "timm.models.cspnext.SPPBottleneck": lambda b, above: [],  # pools only, conv after the cat
    "timm.models.davit.ChannelBlock": lambda b, above: [],  # Linear only
    "timm.models.davit.ConvPosEnc": lambda b, above: [b.proj.out_channels],
    "timm.models.davit.SpatialBlock": lambda b, above: [],  # Linear only
    "timm.models.deepseek_vit.DeepseekVitBlock": lambda b, above: [],  # Linear only
    "timm.models.deepseek_vit.DeepseekVitEncoder": lambda b, above: [],  # whole model
    "timm.models.densenet.DenseBlock": lambda b, above: [],  # dense
    "timm.models.densenet.DenseLayer": lambda b, above: [],  # dense
    "timm.models.dla.DlaBasic": lambda b, above: [b.bn2.num_features],
    "timm.models.dla.DlaBottle2neck": lambda b, above: [b.bn3.num_features],  # the inner sp + spx[i] are none
    "timm.models.dla.DlaBottleneck": lambda b, above: [b.bn3.num_features],
    # arguable: the branch also reads the other children
    "timm.models.dla.DlaRoot": lambda b, above: [],  # aggregates several values, one of which it adds again
    "timm.models.dla.DlaTree": lambda b, above: [],  # container, hands the shortcut on
    "timm.models.dpn.DualPathBlock": dual_path,  # arguable: projecting blocks (pre-activated shortcut), b=True
    # after dw: the branch is Linear only (arguable)
    "timm.models.edgenext.ConvBlock": lambda b, above: [] if b.shortcut_after_dw else [b.conv_dw.out_channels],
    "timm.models.edgenext.CrossCovarianceAttn": lambda b, above: [],  # no add
    "timm.models.edgenext.PositionalEncodingFourier": lambda b, above: [],  # positions
    # the outer add; the inner ones: positions, Linear attention
    "timm.models.edgenext.SplitTransposeBlock": lambda b, above: [b.norm_xca.normalized_shape[0]],
    "timm.models.efficientformer.MetaBlock1d": lambda b, above: [],  # Linear only
    "timm.models.efficientformer.MetaBlock2d": lambda b, above: [b.mlp.fc2.out_channels],  # the first branch only pools
    "timm.models.efficientformer.Pooling": lambda b, above: [],  # pool - x
    "timm.models.efficientformer_v2.Attention2d": lambda b, above: [],  # attention arithmetic (+ v_local)
    "timm.models.efficientformer_v2.Attention2dDownsample": lambda b, above: [],  # attention arithmetic (+ v_local)
    # arguable: attention + strided 3x3 conv-norm of the same x
    "timm.models.efficientformer_v2.Downsample": lambda b, above: (
        [] if b.attn is None else [b.attn.proj.conv.out_channels]
    ),
    "timm.models.efficientformer_v2.EfficientFormerV2Block": lambda b, above: (
        [b.mlp.fc2.conv.out_channels] * (1 if b.token_mixer is None else 2)
    ),
    # arguable: depthwise conv + pooled x, inside a query
    "timm.models.efficientformer_v2.LocalGlobalQuery": lambda b, above: [b.local.out_channels],
    "timm.models.efficientvim.EfficientViMBlock": vim,  # arguable: x + alpha * (f(x) - x)
    "timm.models.efficientvim.HSMSSD": lambda b, above: [],  # state-space arithmetic
    # SE is outside both branches
    "timm.models.efficientvim.PatchMerging": lambda b, above: (
        [] if b.fused else [b.dwconv1.conv.out_channels, b.dwconv2.conv.out_channels]
    ),
    "timm.models.efficientvit_mit.LiteMLA": lambda b, above: [],  # attention, nothing added
    "timm.models.efficientvit_mit.ResidualBlock": lambda b, above: [] if b.shortcut is None else [last_conv(b.main)],
    # adds between parts of a split, logits
    "timm.models.efficientvit_msra.CascadedGroupAttention": lambda b, above: [],
    "timm.models.efficientvit_msra.LocalWindowAttention": lambda b, above: [],  # no add
    "timm.models.efficientvit_msra.ResidualDrop": lambda b, above: [last_conv(b.m)],
    "timm.models.eva.Eva": lambda b, above: [],  # whole model, adds positions
    "timm.models.eva.EvaBlock": lambda b, above: [],  # Linear only
    "timm.models.eva.EvaBlockPostNorm": lambda b, above: [],  # Linear only
    "timm.models.fasternet.MLPBlock": lambda b, above: [b.mlp[-1].out_channels],
    "timm.models.fasternet.Partial_conv3": lambda b, above: [],  # re-joins the parts of a split value
    "timm.models.fastvit.AttentionBlock": lambda b, above: [b.mlp.fc2.out_channels],  # the attention is Linear only
    "timm.models.fastvit.MobileOneBlock": lambda b, above: [],  # alike paths
    "timm.models.fastvit.RepConditionalPosEnc": lambda b, above: [b.dim_out] if b.reparam_conv is None else [],
    # arguable: x + scale * (mixer(x) - norm(x)), re-parameterizable
    "timm.models.fastvit.RepMixer": lambda b, above: [b.dim] if b.reparam_conv is None else [],
    "timm.models.fastvit.RepMixerBlock": lambda b, above: [b.mlp.fc2.out_channels],  # the mixer is a block of its own
    "timm.models.fastvit.ReparamLargeKernelConv": lambda b, above: [],  # alike paths
    "timm.models.focalnet.FocalModulation": lambda b, above: [],  # context modulation
    # arguable: the modulation (global average times value) is gated
    "timm.models.focalnet.FocalNetBlock": lambda b, above: [b.mlp.fc2.out_channels],
    "timm.models.gcvit.GlobalContextVitBlock": lambda b, above: [],  # Linear only
    "timm.models.gcvit.MbConvBlock": lambda b, above: [] if gated(b.se) else [b.conv_pw.out_channels],  # SE: gated
    "timm.models.gemma4_vit.Gemma4Block": lambda b, above: [],  # Linear only
    "timm.models.gemma4_vit.Gemma4PatchEmbed": lambda b, above: [],  # adds positions, Linear only
    "timm.models.gemma4_vit.Gemma4VitClassifier": lambda b, above: [],  # whole model
    "timm.models.gemma4_vit.Gemma4VitEncoder": lambda b, above: [],  # whole model
    # arguable: no gate with the two-conv shortcut; the DFC attention of V2 is no channel gate
    "timm.models.ghostnet.GhostBottleneck": ghost,
    "timm.models.ghostnet.GhostBottleneckV3": ghost,  # arguable as GhostBottleneck
    "timm.models.ghostnet.GhostModule": lambda b, above: [],  # dense: [x1, x2(x1)]
    "timm.models.ghostnet.GhostModuleV2": lambda b, above: [],  # dense: [x1, x2(x1)]
    "timm.models.ghostnet.GhostModuleV3": lambda b, above: [],  # alike paths, then dense: [x1, x2(x1)]
    # "ese": gated
    "timm.models.hgnet.HighPerfGpuBlock": lambda b, above: (
        [b.aggregation[-1].conv.out_channels] if b.residual and not gated(b.aggregation[-1]) else []
    ),
    "timm.models.hgnet.StemV2": lambda b, above: [],  # convs after the cat
    "timm.models.hiera.HieraBlock": lambda b, above: [],  # Linear only
    "timm.models.hiera.PatchEmbed": lambda b, above: [],  # no add
    "timm.models.hrnet.HighResolutionModule": lambda b, above: [],  # fuses streams of different resolution
    "timm.models.hrnet.HighResolutionNet": lambda b, above: [],  # whole model, adds streams of different resolution
    "timm.models.hrnet.HighResolutionNetFeatures": lambda b, above: [],  # whole model
    "timm.models.iformer.RepVitClassifier": lambda b, above: [],  # mean of two heads
    "timm.models.iformer.Residual": lambda b, above: [last_conv(b.module)],
    "timm.models.iformer.SHMA": lambda b, above: [],  # no add
    "timm.models.inception_next.InceptionDWConv2d": lambda b, above: [],  # re-joins the parts of a split value
    "timm.models.inception_next.MetaNeXtBlock": lambda b, above: [b.mlp.fc2.out_channels],
    # the concat is inside the branch
    "timm.models.inception_resnet_v2.Block17": lambda b, above: [b.conv2d.out_channels],
    # the concat is inside the branch
    "timm.models.inception_resnet_v2.Block35": lambda b, above: [b.conv2d.out_channels],
    # the concat is inside the branch
    "timm.models.inception_resnet_v2.Block8": lambda b, above: [b.conv2d.out_channels],
    "timm.models.inception_resnet_v2.Mixed_5b": lambda b, above: [
        sum(last_conv(m) for m in (b.branch0, b.branch1, b.branch2, b.branch3))
    ],
    # and a max-pool path
    "timm.models.inception_resnet_v2.Mixed_6a": lambda b, above: [
        sum(map(last_conv, (b.branch0, b.branch1))) + b.branch0.conv.in_channels
    ],
    # and a pool path
    "timm.models.inception_resnet_v2.Mixed_7a": lambda b, above: [
        sum(map(last_conv, (b.branch0, b.branch1, b.branch2))) + b.branch0[0].conv.in_channels
    ],
}
