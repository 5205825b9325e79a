"""Where the definitions in pytorchcv put residual and Inception joins, read from the source by hand."""

# class: (block, above) -> the channels of each gate, in the order of execution
from torch import nn
from torch.nn.modules.conv import _ConvNd


def _out(m):
    """Output channels of the last convolution in m (registered in the order of execution, where this is used)."""
    return [c.out_channels for c in m.modules() if isinstance(c, _ConvNd)][-1]


def _last(m):
    return list(m.children())[-1]


def _name(m):
    return f"{type(m).__module__.removeprefix('pytorchcv.models.')}.{type(m).__name__}"


def _has_conv(m):
    return any(isinstance(c, _ConvNd) for c in m.modules())


def _inception(m):
    """A Concurrent that concatenates channels of at least two paths with convolutions, none of them the bare input."""
    return (
        m.merge_type == "cat"
        and m.axis == 1
        and sum(_has_conv(c) for c in m) >= 2
        and not any(_name(c) == "common.tutti.Identity" or isinstance(c, nn.Identity) for c in m)
    )


def _encloses(a):
    """Whether a Concurrent found below a is part of a residual branch, or of a path, of a."""
    name = _name(a)
    if name == "common.arch.Concurrent":
        return _inception(a)
    if name == "sinet.ESPBlock":
        return a.use_residual
    if name == "cgnet.CGBlock":
        return not a.down  # arguable: that add is refused (SE in its branch), but its branch is a residual branch
    return name in (
        "inceptionresnetv1.InceptionAUnit",
        "inceptionresnetv1.InceptionBUnit",
        "inceptionresnetv1.InceptionCUnit",
        "polynet.MultiResidual",
        "polynet.PolyResidual",
    )


def _path_channels(path, in_channels):
    name = _name(path)
    if name in ("inceptionv3.ConvSeq3x3Branch", "inceptionv4.ConvSeq3x3Branch"):
        return _out(path.conv1x3) + _out(path.conv3x1)
    if name == "dicenet.SpatialDiceBranch" or not _has_conv(path):  # its conv goes over rows or columns; a pooling
        return in_channels
    return _out(path)


def _concurrent(b, above):
    if not _inception(b) or any(map(_encloses, above)):
        return []
    if any(_name(m) == "dicenet.DiceAttBlock" for m in b.modules()):
        return []  # a path has a gate
    in_channels = next(
        c.in_channels
        for p in b
        if _name(p) != "dicenet.SpatialDiceBranch"
        for c in p.modules()
        if isinstance(c, _ConvNd)
    )
    return [sum(_path_channels(p, in_channels) for p in b)]


def _fish_block(b, above):
    return [_out(b.body)] if b.squeeze or not b.resize_identity else []


def _ghost_unit(b, above):
    if b.resize_identity or b.body.use_se:
        return []
    return [_out(b.body.pw_conv.main_conv) + _out(b.body.pw_conv.cheap_conv)]


def _dpn_unit(b, above):
    if b.has_proj:
        return []
    return [_out(b.conv3a if b.b_case else b.conv3)]


def _channet_unit(b, above):
    return [_out(block) for block in list(b.blocks)[1:]] if b.merge_type == "add" else []


def _oct_res_unit(b, above):
    last = _last(b.body)
    return [last.h_bn.num_features] + ([] if last.last else [last.l_bn.num_features])


def _sparse_transformer(b, above):
    return [b.attention.proj.out_features] if b.attention.pooling_token else []


def _ip_propagation(b, above):
    return [_out(m) for m in (*b.backbone.values(), b.fuse)] if b.learnable else []


def _rfc_propagation(b, above):
    return [_out(m) for m in (*b.backbone.values(), b.fusion)]


def _jasper_unit(b, above):
    return [] if b.use_dr and len(b.identity_block) > 1 else [_out(b.body)]


def _plain(b):
    return b.residual and not b.use_se


def _same_size(b):
    return b.use_residual and not b.downsample and not b.use_se


def _tres_unit(b, above):
    return [_out(b.body.conv3)] if _name(b.body) == "tresnet.TResBottleneck" and not b.body.use_se else []


ROWS = {
    # arguable: AirBlock's attention has no global pooling, so it is read as no channel gate
    "pytorchcv.models.airnet.AirUnit": lambda b, above: [_out(b.body.conv3)],
    # arguable: AirBlock's attention has no global pooling, so it is read as no channel gate
    "pytorchcv.models.airnext.AirNeXtUnit": lambda b, above: [_out(b.body.conv3)],
    "pytorchcv.models.bagnet.BagNetUnit": lambda b, above: [_out(b.body)],  # identity cropped
    "pytorchcv.models.bamresnet.BamResUnit": lambda b, above: [],  # the add is its ResUnit's own
    "pytorchcv.models.bisenet.BiSeNet": lambda b, above: [],  # no join of its own
    "pytorchcv.models.bisenet.FeatureFusion": lambda b, above: [],  # x + x * w is itself a channel gate
    "pytorchcv.models.bisenet.PyramidPoolingMainBranch": lambda b, above: [],  # fusion of streams
    "pytorchcv.models.bninception.InceptionBlock": lambda b, above: [],  # the concat is its Concurrent's own
    "pytorchcv.models.bninception.ReductionBlock": lambda b, above: [],  # the concat is its Concurrent's own
    "pytorchcv.models.cbamresnet.CbamResUnit": lambda b, above: [],  # CBAM in the branch
    "pytorchcv.models.cbamresnet.ChannelGate": lambda b, above: [],  # gate machinery
    "pytorchcv.models.cbamresnet.SpatialGate": lambda b, above: [],  # gate machinery
    "pytorchcv.models.cgnet.CGBlock": lambda b, above: [],  # SE in the branch (down: no add at all)
    # returns norm(cat), and a stream beside or one conv path only
    "pytorchcv.models.cgnet.CGStage": lambda b, above: [],
    # dense: the concat holds the input, or an input of another of its paths
    "pytorchcv.models.cgnet.CGUnit": lambda b, above: [],
    # 'add': out1 + block2(out1), out1 bare; 'cat' is dense; 'seq' joins nothing
    "pytorchcv.models.channelnet.ChannetUnit": _channet_unit,
    # arguable for heads (LFFD, CenterNet), CGBlock (down) and DiceBaseBlock, where a channel gate follows
    "pytorchcv.models.common.arch.Concurrent": _concurrent,
    "pytorchcv.models.common.arch.DualPathParallelConcurent": lambda b, above: [],  # fusion of streams
    "pytorchcv.models.common.arch.DualPathSequential": lambda b, above: [],  # no join of its own
    "pytorchcv.models.common.arch.Hourglass": lambda b, above: [],  # fusion of streams
    "pytorchcv.models.common.arch.MultiOutputSequential": lambda b, above: [],  # no join of its own
    "pytorchcv.models.common.arch.ParallelConcurent": lambda b, above: [],  # returns a list, from several inputs
    # only in PolyNet, inside PolyResidual's branch
    "pytorchcv.models.common.arch.ParametricConcurrent": lambda b, above: [],
    "pytorchcv.models.common.arch.ParametricSequential": lambda b, above: [],  # no join of its own
    # dense: the concat holds the input, or an input of another of its paths
    "pytorchcv.models.common.arch.SequentialConcurrent": lambda b, above: [],
    "pytorchcv.models.common.arch.SesquialteralHourglass": lambda b, above: [],  # fusion of streams
    "pytorchcv.models.common.att.SABlock": lambda b, above: [],  # gate machinery
    "pytorchcv.models.common.norm.IBN": lambda b, above: [],  # parts of a split, re-joined
    "pytorchcv.models.condensenet.CondenseComplexConv": lambda b, above: [],  # no join of its own
    # dense: the concat holds the input, or an input of another of its paths
    "pytorchcv.models.condensenet.CondenseUnit": lambda b, above: [],
    "pytorchcv.models.contextnet.FeatureFusion": lambda b, above: [],  # fusion of streams
    "pytorchcv.models.contextnet.LinearBottleneck": lambda b, above: [_out(b.block)] if b.residual else [],
    "pytorchcv.models.dabnet.DABBlock": lambda b, above: [_out(b.conv2)],  # a norm and a conv come after the inner sum
    # returns norm(cat), and a stream beside or one conv path only
    "pytorchcv.models.dabnet.DABStage": lambda b, above: [],
    # dense: the concat holds the input, or an input of another of its paths
    "pytorchcv.models.dabnet.DABUnit": lambda b, above: [],
    # returns norm(cat), and a stream beside or one conv path only
    "pytorchcv.models.dabnet.DownBlock": lambda b, above: [],
    "pytorchcv.models.danet.ChaAttBlock": lambda b, above: [],  # attention without any convolution
    "pytorchcv.models.danet.DANetHead": lambda b, above: [],  # alike paths
    # arguable: attention with conv projections, the add comes after the attention arithmetic
    "pytorchcv.models.danet.PosAttBlock": lambda b, above: [],  # attention in the forward itself
    "pytorchcv.models.darknet53.DarkUnit": lambda b, above: [_out(b.conv2)],
    "pytorchcv.models.darts.DartsMainBlock": lambda b, above: [],  # NAS cell
    "pytorchcv.models.darts.DartsReduceBranch": lambda b, above: [],  # returns bn(cat)
    "pytorchcv.models.deeplabv3.AtrousSpatialPyramidPooling": lambda b, above: [],  # the concat is its Concurrent's own
    # dense: the concat holds the input, or an input of another of its paths
    "pytorchcv.models.densenet.DenseUnit": lambda b, above: [],
    # dense: the concat holds the input, or an input of another of its paths
    "pytorchcv.models.densenet_cifar.DenseSimpleUnit": lambda b, above: [],
    "pytorchcv.models.diapreresnet.DIAPreResUnit": lambda b, above: [],  # LSTM channel attention (DIA) in the branch
    "pytorchcv.models.diaresnet.DIALSTMCell": lambda b, above: [],  # gate machinery
    "pytorchcv.models.diaresnet.DIAResUnit": lambda b, above: [],  # LSTM channel attention (DIA) in the branch
    "pytorchcv.models.dicenet.DiceBaseBlock": lambda b, above: [],  # the concat is its Concurrent's own
    "pytorchcv.models.dicenet.ShuffledDiceBlock": lambda b, above: [],  # parts of a split, re-joined and shuffled
    "pytorchcv.models.dicenet.SpatialDiceBranch": lambda b, above: [],  # no join of its own
    "pytorchcv.models.dicenet.StridedDiceBlock": lambda b, above: [],  # the concat is its Concurrent's own
    # identity max-pooled, then at most one linear 1x1 projection
    "pytorchcv.models.dla.DLAResBlock": lambda b, above: [_out(b.body)],
    # arguable: the branch starts from a concat that holds the identity x2 among others
    "pytorchcv.models.dla.DLARoot": lambda b, above: [],  # aggregates several values, one of which it adds again
    "pytorchcv.models.dpn.DPNFinalBlock": lambda b, above: [],  # fusion of streams
    # arguable: has_proj's identity is BN-ReLU-conv (activation), so no gate; b_case adds all of conv3a, so its channels
    "pytorchcv.models.dpn.DPNUnit": _dpn_unit,
    "pytorchcv.models.drn.DRNUnit": lambda b, above: [_out(b.body)] if b.residual else [],
    # returns norm(cat), and a stream beside or one conv path only
    "pytorchcv.models.edanet.DownBlock": lambda b, above: [],
    "pytorchcv.models.edanet.EDAUnit": lambda b, above: [],  # dense, and returns relu(cat)
    "pytorchcv.models.efficientnet.EffiDwsConvUnit": lambda b, above: [],  # SE in the branch always
    "pytorchcv.models.efficientnet.EffiInitBlock": lambda b, above: [],  # plain conv
    # SE in the branch with use_se
    "pytorchcv.models.efficientnet.EffiInvResUnit": lambda b, above: [_out(b.conv3)] if _plain(b) else [],
    # SE in the branch with use_se
    "pytorchcv.models.efficientnetedge.EffiEdgeResUnit": lambda b, above: [_out(b.conv2)] if _plain(b) else [],
    "pytorchcv.models.enet.ENetMaxDownBlock": lambda b, above: [],  # zero-padding of the identity
    # returns norm(cat), and a stream beside or one conv path only
    "pytorchcv.models.enet.ENetMixDownBlock": lambda b, above: [],
    # arguable when up: the identity is conv + BN, then max-unpooled; down: max-pooled and zero-padded
    "pytorchcv.models.enet.ENetUnit": lambda b, above: [_out(b.conv3)],
    "pytorchcv.models.erfnet.FCU": lambda b, above: [_out(b.conv2)],
    # arguable: a sum of alike paths (made in a child, Concurrent 'sum') is directly the add's operand
    "pytorchcv.models.esnet.PFCU": lambda b, above: [_out(b)],
    "pytorchcv.models.espcnet.ESPBlock": lambda b, above: [b.norm_activ.bn.num_features] if b.residual else [],
    # returns norm(cat), and a stream beside or one conv path only
    "pytorchcv.models.espcnet.ESPStage": lambda b, above: [],
    # dense: the concat holds the input, or an input of another of its paths
    "pytorchcv.models.espcnet.ESPUnit": lambda b, above: [],
    # arguable: each path's output is added into the next path, read as dense
    "pytorchcv.models.espcnet.HierarchicalConcurrent": lambda b, above: [],
    "pytorchcv.models.espnetv2.DownsampleBlock": lambda b, above: [],  # fusion of streams
    "pytorchcv.models.espnetv2.ESPBlock": lambda b, above: [] if b.downsample else [_out(b.merge_conv)],
    # arguable: each path's output is added into the next path, read as dense
    "pytorchcv.models.espnetv2.HierarchicalConcurrent": lambda b, above: [],
    "pytorchcv.models.fastscnn.FastPyramidPooling": lambda b, above: [],  # the concat is its Concurrent's own
    "pytorchcv.models.fastscnn.FeatureFusion": lambda b, above: [],  # fusion of streams
    "pytorchcv.models.fastscnn.LinearBottleneck": lambda b, above: [_out(b.conv3)] if b.residual else [],
    # SE in the branch with use_se
    "pytorchcv.models.fastseresnet.FastSEResUnit": lambda b, above: [] if b.use_se else [_out(b.body)],
    "pytorchcv.models.fbnet.FBNetUnit": lambda b, above: [_out(b.conv2)] if b.residual else [],
    # arguable: a resized identity is BN-ReLU-conv (activation), so no gate; a squeezed one is linear
    "pytorchcv.models.fishnet.FishBlock": _fish_block,
    "pytorchcv.models.fishnet.SkipAttUnit": lambda b, above: [],  # x * w + w is gate arithmetic
    "pytorchcv.models.fpenet.FPEBlock": lambda b, above: [],  # parts of a split, re-joined
    # the SE gates of the nested FPEUnits do not count
    "pytorchcv.models.fpenet.FPEStage": lambda b, above: [_out(b.blocks[-1].conv2)] if b.use_block else [],
    # SE in the branch with use_se
    "pytorchcv.models.fpenet.FPEUnit": lambda b, above: [] if b.use_se else [_out(b.conv2)],
    "pytorchcv.models.fpenet.MEUBlock": lambda b, above: [],  # fusion of streams
    "pytorchcv.models.fractalnet_cifar.CIFARFractalNet": lambda b, above: [],  # no join of its own
    "pytorchcv.models.fractalnet_cifar.FractalBlock": lambda b, above: [],  # alike paths
    "pytorchcv.models.ghostnet.GhostConvBlock": lambda b, above: [],  # ghost module: [x, cheap(x)]
    # arguable: a resized identity is dw conv + ReLU + 1x1 conv (two convs), so no gate
    "pytorchcv.models.ghostnet.GhostUnit": _ghost_unit,
    "pytorchcv.models.hardnet.HarDUnit": lambda b, above: [],  # dense, and a conv follows the concat
    "pytorchcv.models.hrnet.HRBlock": lambda b, above: [],  # fusion of streams
    "pytorchcv.models.hrnet.HRFinalBlock": lambda b, above: [],  # fusion of streams
    "pytorchcv.models.hrnet.HRStage": lambda b, above: [],  # no join of its own
    "pytorchcv.models.ibnbresnet.IBNbResUnit": lambda b, above: [_out(b.body)],
    # dense: the concat holds the input, or an input of another of its paths
    "pytorchcv.models.ibndensenet.IBNDenseUnit": lambda b, above: [],
    "pytorchcv.models.ibnresnet.IBNResUnit": lambda b, above: [_out(b.body)],
    "pytorchcv.models.ibnresnext.IBNResNeXtUnit": lambda b, above: [_out(b.body)],
    "pytorchcv.models.ibppose_coco.IbpBackbone": lambda b, above: [],  # dense: cat(x, dilated(x))
    # arguable: post_merge(post(y)) + pre_merge(y), the latter conv + BN; x + x_prev: no common value
    "pytorchcv.models.ibppose_coco.IbpPass": lambda b, above: [_out(b.post_merge_block)] if b.merge else [],
    # arguable: x = x + pass(x) between stacked passes, in the model's own forward
    "pytorchcv.models.ibppose_coco.IbpPose": lambda b, above: [_out(p.post_merge_block) for p in list(b.decoder)[:-1]],
    "pytorchcv.models.ibppose_coco.IbpResUnit": lambda b, above: [_out(b.body)],
    "pytorchcv.models.icnet.CFFBlock": lambda b, above: [],  # fusion of streams
    "pytorchcv.models.igcv3.InvResUnit": lambda b, above: [_out(b.conv3)] if b.residual else [],
    "pytorchcv.models.inceptionresnetv1.InceptionAUnit": lambda b, above: [_out(b.conv)],
    "pytorchcv.models.inceptionresnetv1.InceptionBUnit": lambda b, above: [_out(b.conv)],
    "pytorchcv.models.inceptionresnetv1.InceptionCUnit": lambda b, above: [_out(b.conv)],
    "pytorchcv.models.inceptionresnetv1.ReductionAUnit": lambda b, above: [],  # the concat is its Concurrent's own
    "pytorchcv.models.inceptionresnetv1.ReductionBUnit": lambda b, above: [],  # the concat is its Concurrent's own
    "pytorchcv.models.inceptionresnetv2.InceptBlock5b": lambda b, above: [],  # the concat is its Concurrent's own
    # nested inside a path of the unit's Concurrent
    "pytorchcv.models.inceptionv3.ConvSeq3x3Branch": lambda b, above: [],
    "pytorchcv.models.inceptionv3.InceptionAUnit": lambda b, above: [],  # the concat is its Concurrent's own
    "pytorchcv.models.inceptionv3.InceptionBUnit": lambda b, above: [],  # the concat is its Concurrent's own
    "pytorchcv.models.inceptionv3.InceptionCUnit": lambda b, above: [],  # the concat is its Concurrent's own
    "pytorchcv.models.inceptionv3.ReductionAUnit": lambda b, above: [],  # the concat is its Concurrent's own
    "pytorchcv.models.inceptionv3.ReductionBUnit": lambda b, above: [],  # the concat is its Concurrent's own
    # nested inside a path of the unit's Concurrent
    "pytorchcv.models.inceptionv4.ConvSeq3x3Branch": lambda b, above: [],
    "pytorchcv.models.inceptionv4.InceptBlock3a": lambda b, above: [],  # the concat is its Concurrent's own
    "pytorchcv.models.inceptionv4.InceptBlock4a": lambda b, above: [],  # the concat is its Concurrent's own
    "pytorchcv.models.inceptionv4.InceptBlock5a": lambda b, above: [],  # the concat is its Concurrent's own
    "pytorchcv.models.inceptionv4.InceptionAUnit": lambda b, above: [],  # the concat is its Concurrent's own
    "pytorchcv.models.inceptionv4.InceptionBUnit": lambda b, above: [],  # the concat is its Concurrent's own
    "pytorchcv.models.inceptionv4.InceptionCUnit": lambda b, above: [],  # the concat is its Concurrent's own
    "pytorchcv.models.inceptionv4.ReductionAUnit": lambda b, above: [],  # the concat is its Concurrent's own
    "pytorchcv.models.inceptionv4.ReductionBUnit": lambda b, above: [],  # the concat is its Concurrent's own
    "pytorchcv.models.irevnet.IRevMergeBlock": lambda b, above: [],  # fusion of streams
    # arguable: x1 + f(x2) joins two streams (halves of a split), no common value
    "pytorchcv.models.irevnet.IRevUnit": lambda b, above: [],
    # 1-D; arguable with use_dr: from the second unit on the identity sums projections of several earlier values
    "pytorchcv.models.jasper.JasperUnit": _jasper_unit,
    "pytorchcv.models.lednet.APN": lambda b, above: [],  # alike paths (pooling branch + gated conv)
    "pytorchcv.models.lednet.LEDUnit": lambda b, above: [_out(b.left_branch) + _out(b.right_branch)],
    "pytorchcv.models.lffd.LffdDetectionBlock": lambda b, above: [],  # the concat is its Concurrent's own
    # dense: the concat holds the input, or an input of another of its paths
    "pytorchcv.models.lwopenpose_cmupan.LwopDecoderFinalBlock": lambda b, above: [],
    # dense: the concat holds the input, or an input of another of its paths
    "pytorchcv.models.lwopenpose_cmupan.LwopDecoderInitBlock": lambda b, above: [],
    # dense: the concat holds the input, or an input of another of its paths
    "pytorchcv.models.lwopenpose_cmupan.LwopDecoderUnit": lambda b, above: [],
    "pytorchcv.models.lwopenpose_cmupan.LwopEncoderFinalBlock": lambda b, above: [_out(b.body)],
    "pytorchcv.models.lwopenpose_cmupan.LwopRefinementBlock": lambda b, above: [_out(b.body)],
    "pytorchcv.models.lwopenpose_cmupan.LwopResUnit": lambda b, above: [_out(b.body)],
    # arguable: the side path's sigmoid gate is a 3x3 conv map, no global pooling; downsample: relu(cat), one conv path
    "pytorchcv.models.menet.MEUnit": lambda b, above: [] if b.downsample else [b.expand_bn3.num_features],
    "pytorchcv.models.mixnet.MixConv": lambda b, above: [],  # the parts of a split re-joined
    # SE in the branch with use_se
    "pytorchcv.models.mixnet.MixUnit": lambda b, above: [b.conv2.bn.num_features] if _plain(b) else [],
    # SE in the branch with use_se
    "pytorchcv.models.mnasnet.DwsExpSEResUnit": lambda b, above: [_out(b.pw_conv)] if _plain(b) else [],
    "pytorchcv.models.mobilenetv2.LinearBottleneck": lambda b, above: [_out(b.conv3)] if b.residual else [],
    # SE in the branch with use_se
    "pytorchcv.models.mobilenetv3.MobileNetV3Unit": lambda b, above: [_out(b.conv2)] if _plain(b) else [],
    # dense: the concat holds the input, or an input of another of its paths
    "pytorchcv.models.msdnet.MSDFirstScaleBlock": lambda b, above: [],
    # dense: the concat holds the input, or an input of another of its paths
    "pytorchcv.models.msdnet.MSDScaleBlock": lambda b, above: [],
    "pytorchcv.models.msdnet.MultiBlockSequential": lambda b, above: [],  # no join of its own
    "pytorchcv.models.nasnet.FirstUnit": lambda b, above: [],  # NAS cell
    "pytorchcv.models.nasnet.NasPathBlock": lambda b, above: [],  # returns bn(cat)
    "pytorchcv.models.nasnet.NormalUnit": lambda b, above: [],  # NAS cell
    "pytorchcv.models.nasnet.Reduction1Unit": lambda b, above: [],  # NAS cell
    "pytorchcv.models.nasnet.Reduction2Unit": lambda b, above: [],  # NAS cell
    "pytorchcv.models.nasnet.ReductionBaseUnit": lambda b, above: [],  # NAS cell, base class
    "pytorchcv.models.nasnet.Stem1Unit": lambda b, above: [],  # NAS cell
    "pytorchcv.models.nasnet.Stem2Unit": lambda b, above: [],  # NAS cell
    "pytorchcv.models.ntsnet_cub.NTSNet": lambda b, above: [],  # no join of its own
    # arguable: flattened scores of a chain of convs, no channels
    "pytorchcv.models.ntsnet_cub.NavigatorUnit": lambda b, above: [],
    "pytorchcv.models.octresnet.OctConv": lambda b, above: [],  # fusion of streams
    # one add per frequency; arguable: each branch also takes in the other frequency's value
    "pytorchcv.models.octresnet.OctResUnit": _oct_res_unit,
    # dense: the concat holds the input, or an input of another of its paths
    "pytorchcv.models.peleenet.DenseBlock": lambda b, above: [],
    "pytorchcv.models.peleenet.StemBlock": lambda b, above: [],  # the concat is its Concurrent's own
    "pytorchcv.models.pnasnet.PnasBaseUnit": lambda b, above: [],  # NAS cell, base class
    "pytorchcv.models.pnasnet.PnasUnit": lambda b, above: [],  # NAS cell
    "pytorchcv.models.pnasnet.Stem1Unit": lambda b, above: [],  # NAS cell
    # arguable: ((x + f1(x)) + f2(x)): by the letter only the first add has the bare x as its identity
    "pytorchcv.models.polynet.MultiResidual": lambda b, above: [_out(b.res_blocks[0])],
    # the adds are its MultiResidual's and PolyResidual's own
    "pytorchcv.models.polynet.PolyAUnit": lambda b, above: [],
    # the adds are its MultiResidual's and PolyResidual's own
    "pytorchcv.models.polynet.PolyBUnit": lambda b, above: [],
    "pytorchcv.models.polynet.PolyBlock3a": lambda b, above: [],  # the concat is its Concurrent's own
    "pytorchcv.models.polynet.PolyBlock4a": lambda b, above: [],  # the concat is its Concurrent's own
    "pytorchcv.models.polynet.PolyBlock5a": lambda b, above: [],  # the concat is its Concurrent's own
    # the adds are its MultiResidual's and PolyResidual's own
    "pytorchcv.models.polynet.PolyCUnit": lambda b, above: [],
    "pytorchcv.models.polynet.PolyConv": lambda b, above: [],  # no join of its own
    "pytorchcv.models.polynet.PolyPreBBlock": lambda b, above: [],  # the concat is its Concurrent's own
    "pytorchcv.models.polynet.PolyPreCBlock": lambda b, above: [],  # the concat is its Concurrent's own
    # arguable: (x + F(x)) + F(F(x)) + ...: by the letter only the first add has the bare x as its identity
    # x + f(x) + g(x) + h(x): each of them is a branch
    "pytorchcv.models.polynet.PolyResidual": lambda b, above: [_out(block) for block in b.res_blocks],
    "pytorchcv.models.polynet.ReductionAUnit": lambda b, above: [],  # the concat is its Concurrent's own
    "pytorchcv.models.polynet.ReductionBUnit": lambda b, above: [],  # the concat is its Concurrent's own
    "pytorchcv.models.polynet.TwoWayABlock": lambda b, above: [],  # the concat is its Concurrent's own
    "pytorchcv.models.polynet.TwoWayBBlock": lambda b, above: [],  # the concat is its Concurrent's own
    "pytorchcv.models.polynet.TwoWayCBlock": lambda b, above: [],  # the concat is its Concurrent's own
    "pytorchcv.models.preresnet.PreResUnit": lambda b, above: [_out(b.body)],
    "pytorchcv.models.prnet.PRResUnit": lambda b, above: [_out(b.body)],
    "pytorchcv.models.propainter.Encoder": lambda b, above: [],  # concats in front of the layers, not returned
    # MLP of Linear layers only, no add of its own
    "pytorchcv.models.propainter.FusionFeedForward": lambda b, above: [],
    # arguable: enc_feat + sc(transformers(ss(enc_feat))) in the model's own forward
    "pytorchcv.models.propainter.ProPainter": lambda b, above: [_out(b.sc)],
    "pytorchcv.models.propainter.SparseWindowAttention": lambda b, above: [],  # no join of its own
    # arguable: Linear projections, but a depthwise pooling conv in the attention; the MLP has none
    "pytorchcv.models.propainter.TemporalSparseTransformer": _sparse_transformer,
    "pytorchcv.models.propainter.TemporalSparseTransformerBlock": lambda b, above: [],  # no join of its own
    # arguable: recurrent feat_prop + backbone(cat(.., feat_prop, ..)) per direction, then fuse(..) + x
    "pytorchcv.models.propainter_ip.BidirectionalPropagation": _ip_propagation,
    "pytorchcv.models.propainter_ip.PPImagePropagation": lambda b, above: [],  # not learnable: no convs
    "pytorchcv.models.propainter_rfc.PPRecurrentFlowComplete": lambda b, above: [],  # no join of its own
    # arguable: recurrent feat_prop + backbone(cat(.., feat_prop)) per direction, then fusion(..) + x
    "pytorchcv.models.propainter_rfc.RFCBidirectionalPropagation": _rfc_propagation,
    "pytorchcv.models.proxylessnas.ProxylessUnit": lambda b, above: [_out(b.body)] if b.residual and b.shortcut else [],
    "pytorchcv.models.pspnet.PyramidPooling": lambda b, above: [],  # the concat is its Concurrent's own
    "pytorchcv.models.pyramidnet.PyrUnit": lambda b, above: [b.bn.num_features],  # identity pooled and zero-padded
    "pytorchcv.models.raft.ConvGRU": lambda b, above: [],  # GRU update
    # arguable: coords1 + delta_flow(coords1): by the letter residual, but a 2-channel flow update after a GRU
    "pytorchcv.models.raft.RAFT": lambda b, above: [],  # recurrent updates of coordinates
    "pytorchcv.models.raft.RAFTEncoder": lambda b, above: [],  # no join of its own
    "pytorchcv.models.raft.RAFTMotionEncoder": lambda b, above: [],  # two inputs, one of them bare in the concat
    "pytorchcv.models.raft.RAFTUpdateBlock": lambda b, above: [],  # fusion of streams
    "pytorchcv.models.raft.SepConvGRU": lambda b, above: [],  # GRU updates
    # SE in the branch with use_se
    "pytorchcv.models.regnet.RegNetUnit": lambda b, above: [] if b.body.use_se else [_out(b.body)],
    "pytorchcv.models.resattnet.DoubleSkipBlock": lambda b, above: [_out(b.skip1)],
    "pytorchcv.models.resattnet.ResBlock": lambda b, above: [_out(b.body)],
    "pytorchcv.models.resdropresnet_cifar.ResDropResUnit": lambda b, above: [_out(b.body)],
    "pytorchcv.models.resnesta.ResNeStAUnit": lambda b, above: [],  # split attention in the branch
    "pytorchcv.models.resnet.ResUnit": lambda b, above: [_out(b.body)],
    "pytorchcv.models.resneta.ResAUnit": lambda b, above: [_out(b.body)],
    "pytorchcv.models.resnext.ResNeXtUnit": lambda b, above: [_out(b.body)],
    # else the ReversibleBlock does the adds
    "pytorchcv.models.revnet.RevUnit": lambda b, above: [_out(b.body)] if b.resize_identity else [],
    # arguable: x1 + fm(x2), x2 + gm(y1) join parts of a split value
    "pytorchcv.models.revnet.ReversibleBlock": lambda b, above: [],
    "pytorchcv.models.rir_cifar.RiRFinalBlock": lambda b, above: [],  # fusion of streams
    # arguable: res_pass(x_res) + identity; the cross adds mix two streams; a resized identity is a 1x1 conv
    "pytorchcv.models.rir_cifar.RiRUnit": lambda b, above: [_out(b.res_pass_conv)],
    "pytorchcv.models.ror_cifar.RoRResBody": lambda b, above: [_out(b.stages[-1].units)],  # identity: 1x1 conv + BN
    "pytorchcv.models.ror_cifar.RoRResStage": lambda b, above: [_out(b.units)],  # identity: 1x1 conv + BN
    "pytorchcv.models.ror_cifar.RoRResUnit": lambda b, above: [_out(b.body)],
    # nested in ScUnit's branch, and a conv follows the concat
    "pytorchcv.models.scnet.ScBottleneck": lambda b, above: [],
    "pytorchcv.models.scnet.ScConv": lambda b, above: [],  # arguable: x + up(down(x)) is inside a sigmoid gate
    # arguable: ScConv's sigmoid gate has no global pooling, so it is read as no channel gate
    "pytorchcv.models.scnet.ScUnit": lambda b, above: [_out(b.body)],
    "pytorchcv.models.selecsls.SelecSLSUnit": lambda b, above: [],  # dense, and a conv follows the concat
    "pytorchcv.models.senet.SENetUnit": lambda b, above: [],  # SE in the branch
    "pytorchcv.models.sepreresnet.SEPreResUnit": lambda b, above: [],  # SE in the branch
    "pytorchcv.models.seresnet.SEResUnit": lambda b, above: [],  # SE in the branch
    "pytorchcv.models.seresnext.SEResNeXtUnit": lambda b, above: [],  # SE in the branch
    "pytorchcv.models.shakedropresnet_cifar.ShakeDropResUnit": lambda b, above: [_out(b.body)],
    # arguable: 0.5 * (x1 + x2), a (scaled) sum of alike paths, is directly the add's operand
    "pytorchcv.models.shakeshakeresnet_cifar.ShakeShakeResUnit": lambda b, above: [],
    "pytorchcv.models.shakeshakeresnet_cifar.ShakeShakeShortcut": lambda b, above: [],  # returns bn(cat)
    # the last conv may be a shared one
    "pytorchcv.models.sharesnet.ShaResUnit": lambda b, above: [_last(b.body).bn.num_features],
    # downsample returns relu(cat), and only one path has convs
    "pytorchcv.models.shufflenet.ShuffleUnit": lambda b, above: [] if b.downsample else [b.expand_bn3.num_features],
    # the add on x2 alone; the concat re-joins a split or is shuffled before the return
    "pytorchcv.models.shufflenetv2.ShuffleUnit": lambda b, above: [b.expand_bn3.num_features] if _same_size(b) else [],
    # the add on x2 alone; the concat re-joins a split or is shuffled before the return
    "pytorchcv.models.shufflenetv2b.ShuffleUnit": lambda b, above: [_out(b.conv2)] if _same_size(b) else [],
    "pytorchcv.models.sinet.ESPBlock": lambda b, above: [b.preactiv.bn.num_features] if b.use_residual else [],
    "pytorchcv.models.sinet.FDWConvBlock": lambda b, above: [],  # alike paths
    "pytorchcv.models.sinet.SBDecodeBlock": lambda b, above: [],  # fusion of streams
    # returns norm(cat), and a stream beside or one conv path only
    "pytorchcv.models.sinet.SBStage": lambda b, above: [],
    "pytorchcv.models.sknet.SKConvBlock": lambda b, above: [],  # gate machinery
    "pytorchcv.models.sknet.SKNetUnit": lambda b, above: [],  # SK in the branch
    # dense: the concat holds the input, or an input of another of its paths
    "pytorchcv.models.sparsenet.SparseStage": lambda b, above: [],
    "pytorchcv.models.spnasnet.SPNASUnit": lambda b, above: [_out(b.conv2)] if b.residual else [],
    "pytorchcv.models.sqnet.FireBlock": lambda b, above: [],  # the concat is its Concurrent's own
    "pytorchcv.models.sqnet.ParallelDilatedConv": lambda b, above: [],  # the concat is its Concurrent's own
    # residual: the add, with the concat nested; else the concat itself (Inception)
    "pytorchcv.models.squeezenet.FireUnit": lambda b, above: [_out(b.expand1x1) + _out(b.expand3x3)],
    # arguable: a resized identity is conv + BN + ReLU (activation), so no gate
    "pytorchcv.models.squeezenext.SqnxtUnit": lambda b, above: [] if b.resize_identity else [_out(b.conv5)],
    "pytorchcv.models.superpointnet.SPDescriptor": lambda b, above: [],  # no join of its own
    "pytorchcv.models.superpointnet.SPDetector": lambda b, above: [],  # no join of its own
    "pytorchcv.models.superpointnet.SuperPointNet": lambda b, above: [],  # no join of its own
    # SE in the branch with use_se; arguable: the add is in __call__, there is no forward
    "pytorchcv.models.tresnet.TResUnit": _tres_unit,
    "pytorchcv.models.vovnet.VoVUnit": lambda b, above: [_out(b.concat_conv)] if b.use_residual else [],
    "pytorchcv.models.wrn.WRNUnit": lambda b, above: [_out(b.body)],
    "pytorchcv.models.wrn1bit_cifar.PreResUnit1bit": lambda b, above: [_out(b.body)],  # identity pooled and zero-padded
    "pytorchcv.models.xception.XceptionUnit": lambda b, above: [_out(b.body)],
    # dense: the concat holds the input, or an input of another of its paths
    "pytorchcv.models.xdensenet.XDenseUnit": lambda b, above: [],
    "pytorchcv.models.xdensenet_cifar.XDenseSimpleUnit": lambda b, above: [],  # dense
}
